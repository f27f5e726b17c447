# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client against scripted HTTP exchanges."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    Exists,
    HostingError,
    InvalidInput,
    NotFound,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import (
    RETRY_DELAYS,
    Client,
    http_sender,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.s3 import s3_client
from garage_support import Exchange, Script
from lab.garage.background import RunningGarage, running_garage
from support.cutting_proxy import Direction, Request, cutting_proxy

URL = "http://garage.example.org:3903"
BAD_URLS = [
    "",
    "garage:3903",
    "ftp://garage",
    "http://",
    "http://u:p@garage:3903",
    "http://g/?x",
    "http://[::1",
    "http://a b",
    "http://g:port",
    "http://g:99999",
]
MakeScript = Callable[[Sequence[Exchange]], Script]


def error(code: str, message: str = "text") -> dict[str, str]:
    return {"code": code, "message": message, "region": "garage", "path": "/"}


def client(script: Script, sleeps: list[float] | None = None) -> Client:
    return Client(script.send, where=URL, sleep=(sleeps if sleeps is not None else []).append)


def test_query_and_body_are_encoded(script: MakeScript) -> None:
    made = script([Exchange("POST", "/v2/UpdateKey?id=a%26b%0A", {"neverExpires": True}, 200, {"ok": 1})])
    assert client(made).post("UpdateKey", {"neverExpires": True}, id="a&b\n") == {"ok": 1}


@pytest.mark.parametrize(
    ("status", "answer", "kind", "words"),
    [
        (403, error("AccessDenied"), Denied, ["GARAGE_ADMIN_TOKEN", f"{URL}/v2/ListKeys", "scope lacks ListKeys"]),
        (403, b"<html>proxy</html>", Denied, ["GARAGE_ADMIN_TOKEN"]),
        (404, error("NoSuchBucket", "Bucket not found: x"), NotFound, ["Bucket not found: x"]),
        (409, error("BucketAlreadyExists"), Exists, ["run again"]),
        (409, error("KeyAlreadyExists"), Exists, ["existed and was deleted", "new access key id"]),
        (409, error("BucketNotEmpty"), BackendError, ["holds objects", "never deleted"]),
        (400, error("InvalidRequest", "Bad request: Unknown API endpoint: GET /v2/x"), BackendError, ["Garage 2.0"]),
        (500, error("InternalError", "Layout not ready"), BackendError, ["Layout not ready", "HTTP 500"]),
        (500, b"[]", BackendError, ["HTTP 500"]),
        (302, b"", BackendError, ["HTTP 302"]),
        (200, b"<html>", BackendError, ["no JSON", "3903"]),
    ],
)
def test_errors(script: MakeScript, status: int, answer: Any, kind: type[HostingError], words: list[str]) -> None:
    made = script([Exchange("GET", "/v2/ListKeys", None, status, answer)])
    with pytest.raises(kind) as caught:
        client(made).get("ListKeys")
    assert [word for word in words if word not in str(caught.value)] == []


def test_no_quorum_is_tried_again(script: MakeScript) -> None:
    unavailable = Exchange("GET", "/v2/ListKeys", None, 503, error("ServiceUnavailable"))
    made = script([unavailable, unavailable, Exchange("GET", "/v2/ListKeys", None, 200, [])])
    sleeps: list[float] = []
    assert client(made, sleeps).get("ListKeys") == []
    assert sleeps == list(RETRY_DELAYS[:2])


def test_no_quorum_is_not_tried_for_ever(script: MakeScript) -> None:
    unavailable = Exchange("POST", "/v2/DeleteKey?id=x", None, 503, error("ServiceUnavailable"))
    made = script([unavailable] * (1 + len(RETRY_DELAYS)))
    with pytest.raises(Unreachable, match="quorum"):
        client(made).post("DeleteKey", id="x")


@pytest.mark.parametrize("endpoint", ["CreateBucket", "ImportKey"])
def test_what_makes_objects_is_not_tried_twice(script: MakeScript, endpoint: str) -> None:
    made = script([Exchange("POST", f"/v2/{endpoint}", {}, 503, error("ServiceUnavailable"))])
    with pytest.raises(Unreachable):
        client(made).post(endpoint, {})


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_url(url: str) -> None:
    with pytest.raises(InvalidInput, match="admin_url"):
        http_sender(url, "token")
    with pytest.raises(InvalidInput, match="s3_endpoint"):
        s3_client(url, "garage", "GK1", "secret")


@pytest.mark.parametrize("token", ["", "sentinel secret", "sentinel\n", "sentinel\r\nX: y", "sentinel\u00e9"])
def test_bad_token_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(InvalidInput, match="admin_token") as caught:
        http_sender(URL, token)
    assert "sentinel" not in str(caught.value)


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"refused.*GARAGE_ADMIN_URL") as caught:
            Client(http_sender(url, "sentinel"), where=url).get("ListKeys")
    assert url in str(caught.value)
    assert "sentinel" not in str(caught.value)


@pytest.fixture
def garage(tmp_path: Path) -> Iterator[RunningGarage]:
    with running_garage(tmp_path / "garage") as running:
        yield running


@dataclass
class Watched:
    """The connections over which requests came; the next ``cuts`` answers are lost."""

    connections: list[int] = field(default_factory=list)
    cuts: int = 0

    def cut(self, direction: Direction, request: Request) -> bool:
        if direction == "request":
            self.connections.append(request.connection)
            return False
        self.cuts -= 1
        return self.cuts >= 0


def test_all_requests_go_over_one_connection(garage: RunningGarage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    watched = Watched()
    with cutting_proxy(target(garage), watched.cut) as proxy:
        send = http_sender(f"http://{proxy.host}:{proxy.port}", garage.admin_token)
        for _number in range(3):
            assert Client(send).get("ListKeys") == []
    assert watched.connections == [1, 1, 1]


def test_only_reading_is_repeated_when_the_connection_breaks(garage: RunningGarage) -> None:
    watched = Watched()
    with cutting_proxy(target(garage), watched.cut) as proxy:
        admin = Client(http_sender(f"http://{proxy.host}:{proxy.port}", garage.admin_token))
        watched.cuts = 1
        assert admin.get("ListKeys") == []
        watched.cuts = 1
        with pytest.raises(Unreachable):
            admin.post("CreateKey", {"name": "one"})
        assert [row["name"] for row in admin.get("ListKeys")] == ["one"]
        watched.cuts = 2
        with pytest.raises(Unreachable):
            admin.get("ListKeys")


def test_netrc_has_no_say(garage: RunningGarage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n", encoding="ascii")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert Client(http_sender(garage.url, garage.admin_token)).get("ListKeys") == []


def target(garage: RunningGarage) -> tuple[str, int]:
    host, _colon, port = garage.url.removeprefix("http://").partition(":")
    return host, int(port)
