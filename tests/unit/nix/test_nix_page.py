# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of the application stand-ins: it proves the login, escapes every text and shows no secret."""

from __future__ import annotations

import html
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from nix_fleets import HOSTILE
from support.postgresql import Server, postgresql_server

WEB = Path(__file__).resolve().parents[2] / "lab/nixpkgs/nixos/modules/applications/web.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with postgresql_server(tmp_path_factory.mktemp("postgresql")) as running:
        yield running


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    specification = importlib.util.spec_from_file_location("lab_web", WEB)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    instances = tmp_path / "instances"
    instances.mkdir()
    described = {"application": "pixelfed", "operatorDisplayName": HOSTILE, "settings": {"title": HOSTILE}}
    (instances / "a_b_pixelfed.json").write_text(json.dumps(described), encoding="utf-8")
    monkeypatch.setattr(module, "DESCRIPTIONS", instances)
    return module


@pytest.fixture
def facts(server: Server, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "password").write_text(server.password, encoding="utf-8")
    return {
        "application": "pixelfed",
        "database": {"host": server.host, "port": server.port, "name": "postgres", "user": server.superuser},
        "password": {"file": str(tmp_path / "password")},
        "storage": {"buckets": {"media": "a--b--pixelfed--media"}, "accessKeyId": "GK1"},
        "secrets": {
            "given": {"file": str(tmp_path / "password")},
            "lost": {"file": str(tmp_path / "nothing")},
            "unset": {"variable": "FEDIVERSITY_TEST_UNSET"},
        },
    }


def test_it_logs_in_with_the_delivered_secret(web: ModuleType, facts: dict[str, Any], server: Server) -> None:
    data = web.report(facts)
    assert data["database"]["ok"] is True
    assert (data["database"]["user"], data["database"]["database"]) == (server.superuser, "postgres")
    assert data["secrets"] == {
        "given": f"readable, {len(server.password)} bytes",
        "lost": "unreadable: No such file or directory",
        "unset": "not given",
    }


@pytest.mark.parametrize(("password", "error"), [("wrong", "password authentication failed"), (None, "no password")])
def test_a_failing_login_says_why(
    web: ModuleType, facts: dict[str, Any], tmp_path: Path, password: str | None, error: str
) -> None:
    if password is None:
        (tmp_path / "password").unlink()
    else:
        (tmp_path / "password").write_text(password, encoding="utf-8")
    database = web.report(facts)["database"]
    assert database["ok"] is False
    assert error in database["error"]


def test_every_text_is_escaped_and_no_secret_is_shown(web: ModuleType, facts: dict[str, Any], server: Server) -> None:
    data = web.report(facts)
    page = web.page(data)
    assert "<script>" not in page
    assert html.escape(HOSTILE) in page
    assert "stand-in of the lab" in page
    assert server.password not in page
    assert server.password not in json.dumps(data)
