# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets of keys, and tokens of the admin API, given and made by Garage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from services_leaks import USUAL, outcomes, played, runs
from support.garage_server import GarageServer, garage_server

LOGIN = {"admin_url": "{{ url }}", "admin_token": "{{ token }}"}
# in place of the login
FAILING = [
    {"admin_token": "{{ wrong_token }}"},
    {"admin_url": "http://127.0.0.1:1", "admin_token": "{{ wrong_token }}"},
]
NAMES = ("alice", "bob", "refused")


@pytest.fixture(scope="module")
def server() -> Iterator[GarageServer]:
    with garage_server() as running:
        yield running


def hexadecimal(name: str) -> str:
    """64 digits, as Garage wants them."""
    return hashlib.sha256(f"sentinel {name}".encode()).hexdigest()


def key_id(name: str) -> str:
    return f"GK{hexadecimal(f'id {name}')[:24]}"


def given(server: GarageServer, *names: str) -> dict[str, str]:
    """Secrets by the names of variables; those of keys belong to *names*."""
    tokens = {"token": server.admin_token, "wrong_token": "sentinel-wrong-token-5a1e"}
    return {**tokens, **{name: hexadecimal(name) for name in names}}


def key(word: str, /, **fields: Any) -> dict[str, Any]:
    secret = f"{{{{ {word} }}}}"
    return {
        "name": f"fediversity/{word}", "access_key_id": key_id(word), "secret_access_key": secret, **fields
    }  # fmt: skip


def bucket(name: str) -> dict[str, Any]:
    return {"name": f"{name}--media", "permissions": [{"key": f"fediversity/{name}", "read": True, "write": True}]}


def test_garage_buckets(tmp_path: Path, server: GarageServer) -> None:
    secrets = given(server, *NAMES)
    arguments = {**LOGIN, "keys": [key("alice"), key("bob")], "buckets": [bucket("alice"), bucket("bob")]}
    refused = [
        key("refused", name="without our prefix"),
        key("refused", access_key_id="no id"),
        key("refused", access_key_id=key_id("alice")),
    ]
    failing = [{"keys": refused}, *FAILING]
    seen = played(tmp_path, runs("garage_buckets", arguments, *failing), {**secrets, "url": server.admin_url})
    assert outcomes(seen) == [*USUAL, *[(False, True)] * 3]
    assert seen.traces(secrets, log=server.log) == []


def test_garage_keys(tmp_path: Path, server: GarageServer) -> None:
    secrets = given(server, "carol", "refused")
    file = tmp_path / "dora.secret"
    made = {"name": "fediversity/dora", "secret_file": str(file)}
    arguments = {**LOGIN, "keys": [key("carol", secret_file=str(tmp_path / "carol.secret")), made]}
    foreign = tmp_path / "foreign"
    foreign.write_text("theirs", encoding="utf-8")
    refused = [key("refused", name="without our prefix"), {**made, "secret_file": str(foreign)}]
    failing = [{"keys": refused}, *FAILING]
    seen = played(tmp_path, runs("garage_keys", arguments, *failing), {**secrets, "url": server.admin_url})
    assert outcomes(seen) == [*USUAL, *[(False, True)] * 3]
    made_secret = file.read_text(encoding="utf-8")
    assert len(made_secret) == 64
    assert seen.traces({**secrets, "made": made_secret}, log=server.log) == []


def test_garage_admin_tokens(tmp_path: Path, server: GarageServer) -> None:
    secrets = given(server)
    file = tmp_path / "run.token"
    token = {"name": "fediversity/run", "presets": ["run"], "never_expires": True, "token_file": str(file)}
    failing = [{"tokens": [{**token, "name": "without our prefix"}, {**token, "scope": ["NoSuchEndpoint"]}]}, *FAILING]
    arguments = {**LOGIN, "tokens": [token]}
    seen = played(tmp_path, runs("garage_admin_tokens", arguments, *failing), {**secrets, "url": server.admin_url})
    assert outcomes(seen) == [*USUAL, *[(False, True)] * 3]
    made = file.read_text(encoding="utf-8")
    # the part before the dot is its public id
    assert seen.traces({**secrets, "made": made, "its secret part": made.partition(".")[2]}, log=server.log) == []


def test_garage_access(tmp_path: Path, server: GarageServer) -> None:
    secrets = given(server, "erin", "frank", "wrong")
    keys = [
        {
            "access_key_id": key_id(name),
            "secret_access_key": f"{{{{ {name} }}}}",
            "buckets": [{"name": f"{name}--media", "read": True, "write": True}],
            "refused": [f"{other}--media"],
        }
        for name, other in (("erin", "frank"), ("frank", "erin"))
    ]
    made = {**LOGIN, "keys": [key("erin"), key("frank")], "buckets": [bucket("erin"), bucket("frank")]}
    failing = [
        {"keys": [{**keys[0], "secret_access_key": "{{ wrong }}"}]},
        {"keys": [{**keys[0], "refused": ["erin--media"]}]},
        {"s3_endpoint": "http://127.0.0.1:1"},
    ]
    arguments = {"s3_endpoint": server.s3_endpoint, "keys": keys}
    tasks = [{"fediversity.hosting.garage_buckets": made}, *runs("garage_access", arguments, *failing)]
    seen = played(tmp_path, tasks, {**secrets, "url": server.admin_url})
    assert outcomes(seen) == [(True, False), *[(False, False)] * 3, *[(False, True)] * 3]
    assert seen.traces(secrets, log=server.log) == []
