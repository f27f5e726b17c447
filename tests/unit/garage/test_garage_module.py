# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module garage_buckets against the simulator over loopback, and once through Ansible itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.fediversity.hosting.plugins.doc_fragments import garage as fragment
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import GARAGE_ARGUMENTS
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import BUCKET_ARGUMENTS
from ansible_collections.fediversity.hosting.plugins.modules import garage_buckets
from lab.garage.background import RunningGarage, running_garage

ROOT = Path(__file__).parents[3]
TOKEN = "sentinel-admin-token"
SECRET = "5e4711e1" * 8
KEY = {"name": "fediversity/alice_social_mastodon", "access_key_id": "GK" + "0a" * 12, "secret_access_key": SECRET}
BUCKET = {
    "name": "alice--social--mastodon--media",
    "quotas": {"max_size": 10 * 2**30},
    "permissions": [{"key": KEY["name"], "read": True, "write": True}],
}
ABSENT = {"keys": [{"name": KEY["name"], "state": "absent"}], "buckets": [{"name": BUCKET["name"], "state": "absent"}]}
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def garage(tmp_path: Path) -> Iterator[RunningGarage]:
    with running_garage(tmp_path, admin_token=TOKEN) as running:
        yield running


@pytest.fixture
def run(garage: RunningGarage, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the module in this process and returns what it printed."""

    def run_module(*, check: bool = False, **options: Any) -> dict[str, Any]:
        arguments = {"admin_url": garage.url, "admin_token": TOKEN, **options, "_ansible_check_mode": check}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            garage_buckets.main()
        output = capsys.readouterr().out
        assert SECRET not in output
        assert TOKEN not in output
        return dict(json.loads(output))

    return run_module


def requests(garage: RunningGarage) -> list[str]:
    """Endpoints in the order of the access log."""
    lines = garage.access_log.read_text(encoding="utf-8").splitlines()
    return [line.split(" ")[3].removeprefix("/v2/").partition("?")[0] for line in lines]


def test_life_of_a_bucket(run: Run, garage: RunningGarage) -> None:
    predicted = run(check=True, keys=[KEY], buckets=[BUCKET])
    assert set(requests(garage)) == {"ListKeys", "GetBucketInfo"}
    first = run(keys=[KEY], buckets=[BUCKET])
    assert (first["changed"], first["diff"]) == (True, predicted["diff"])
    bucket, key = first["results"]
    assert (bucket["action"], len(bucket["id"])) == ("create", 64)
    assert (key["action"], key["access_key_id"]) == ("create", KEY["access_key_id"])

    before = len(requests(garage))
    second = run(keys=[KEY], buckets=[BUCKET])
    assert (second["changed"], second["diff"]) == (False, {"before": {}, "after": {}})
    assert len(requests(garage)) - before == 2

    with garage.store.change() as tables:
        tables["buckets"][bucket["id"]]["keys"][KEY["access_key_id"]] = [False, True, True]
    repaired = run(keys=[KEY], buckets=[BUCKET])
    shown = f"{KEY['name']} ({KEY['access_key_id']})"
    assert repaired["diff"]["before"][f"bucket {BUCKET['name']}"]["permissions"] == {shown: ["owner", "write"]}
    assert garage.store.tables["buckets"][bucket["id"]]["keys"] == {KEY["access_key_id"]: [True, True, False]}

    changed = run(buckets=[{"name": BUCKET["name"], "quotas": {"max_objects": 0}, "website": {"enabled": True}}])
    assert changed["changed"]
    row = garage.store.tables["buckets"][bucket["id"]]
    assert row["quotas"] == {"maxSize": None, "maxObjects": 0}
    assert row["website"]["indexDocument"] == "index.html"

    assert run(**ABSENT)["changed"]
    assert not run(**ABSENT)["changed"]
    assert garage.store.tables["buckets"] == {}


def test_wrong_token(run: Run, garage: RunningGarage) -> None:
    answer = run(admin_token="wrong", buckets=[BUCKET])
    assert answer["failed"]
    assert f"{garage.url}/v2/ListKeys" in answer["msg"]
    assert "GARAGE_ADMIN_TOKEN" in answer["msg"]


def test_unreachable(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        answer = run(admin_url=url, buckets=[BUCKET])
    assert answer["failed"]
    assert url in answer["msg"]
    assert "GARAGE_ADMIN_URL" in answer["msg"]


def test_netrc_does_not_replace_the_token(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password something\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert not run(buckets=[BUCKET | {"permissions": []}]).get("failed")


def test_hostile_names_are_data(run: Run) -> None:
    name = "fediversity/{{ lookup('pipe','id') }}\n\"'' ${x} \U0001f600"
    made = run(keys=[KEY | {"name": name}])
    assert not made.get("failed"), made["msg"]
    assert not run(keys=[KEY | {"name": name}])["changed"]


def test_through_ansible_with_everything_shown(garage: RunningGarage, tmp_path: Path) -> None:
    """The environment gives URL and token; nothing that Ansible prints holds a secret."""
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            {"fediversity.hosting.garage_buckets": {"keys": [KEY], "buckets": [BUCKET]}, "register": "made"},
            {"ansible.builtin.debug": {"var": "made"}},
            {"fediversity.hosting.garage_buckets": {"keys": [KEY], "buckets": [BUCKET]}},
        ],
    }
    (tmp_path / "ansible.cfg").touch()
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump([play]), encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
        "GARAGE_ADMIN_URL": garage.url,
        "GARAGE_ADMIN_TOKEN": TOKEN,
    }
    command = [sys.executable, "-m", "ansible", "playbook", "-vvv", "--diff", str(playbook)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=1" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert BUCKET["name"] in garage.store.tables["aliases"]


def test_documented_options_are_those_of_the_argument_spec() -> None:
    documented = yaml.safe_load(garage_buckets.DOCUMENTATION)["options"]
    documented |= yaml.safe_load(fragment.ModuleDocFragment.DOCUMENTATION)["options"]
    assert options_of(documented, "suboptions") == options_of({**GARAGE_ARGUMENTS, **BUCKET_ARGUMENTS}, "options")


def options_of(options: dict[str, Any], inner: str) -> dict[str, Any]:
    return {
        name: (
            option.get("type"),
            option.get("required", False),
            option.get("default"),
            option.get("choices"),
            options_of(option.get(inner, {}), inner),
        )
        for name, option in options.items()
    }
