# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator over HTTP on loopback: state on disk, access log, transport."""

from __future__ import annotations

import http.client
import json
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from lab.garage import store as store_module
from lab.garage.background import RunningGarage, running_garage
from lab.garage.store import Store


def call(garage: RunningGarage, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(garage.url).netloc, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {token or garage.admin_token}"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        reply = connection.getresponse()
        text = reply.read().decode()
        assert reply.headers["Access-Control-Allow-Origin"] == ("*" if reply.status == 200 else None)
        return reply.status, json.loads(text) if reply.headers.get_content_type() == "application/json" else text
    finally:
        connection.close()


def test_state_survives_a_restart(tmp_path: Path) -> None:
    with running_garage(tmp_path) as garage:
        status, bucket = call(garage, "POST", "/v2/CreateBucket", {"globalAlias": "media"})
        assert status == 200
        _status, token = call(garage, "POST", "/v2/CreateAdminToken", {"name": "t"})
    with running_garage(tmp_path) as garage:
        status, found = call(garage, "GET", "/v2/GetBucketInfo?globalAlias=media", token=token["secretToken"])
        assert (status, found) == (200, bucket)


def test_state_is_private_and_holds_no_token(tmp_path: Path) -> None:
    with running_garage(tmp_path) as garage:
        _status, token = call(garage, "POST", "/v2/CreateAdminToken", {"name": "t"})
    file = tmp_path / "garage.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token["secretToken"] not in file.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".new"] == []


def test_a_failed_write_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "garage.json"
    store = Store(path)
    with store.change() as tables:
        tables["aliases"]["one"] = "1"

    def full(_descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"), store.change() as tables:
        tables["aliases"]["two"] = "2"
    assert store.tables["aliases"] == {"one": "1"}
    assert Store(path).tables["aliases"] == {"one": "1"}


def test_access_log_has_one_line_per_request_and_no_token(tmp_path: Path) -> None:
    with running_garage(tmp_path) as garage:
        call(garage, "GET", "/v2/ListKeys")
        call(garage, "GET", "/v2/GetBucketInfo?globalAlias=a%0Ab")
        call(garage, "GET", "/v2/ListKeys", token="wrong-token")
        call(garage, "GET", "/health")
        lines = garage.access_log.read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2].rsplit(" ", 1)[0] for line in lines] == [
        "GET /v2/ListKeys 200",
        "GET /v2/GetBucketInfo?globalAlias=a%0Ab 404",
        "GET /v2/ListKeys 403",
        "GET /health 200",
    ]
    assert not [line for line in lines if garage.admin_token in line or "wrong-token" in line]


def test_a_taken_address_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    with running_garage(tmp_path) as garage:
        port = urlsplit(garage.url).port
        assert port is not None
        with pytest.raises(OSError, match="address already in use"), running_garage(tmp_path / "other", port=port):
            pass


def test_options_needs_no_token(tmp_path: Path) -> None:
    with running_garage(tmp_path) as garage:
        assert call(garage, "OPTIONS", "/v2/ListKeys", token="x")[0] == 200
