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
from urllib.parse import urlsplit

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.fediversity.hosting.plugins.doc_fragments import garage as fragment
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.arguments import (
    BUCKET_ARGUMENTS,
    KEY_ARGUMENTS,
    TOKEN_ARGUMENTS,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import GARAGE_ARGUMENTS
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.s3 import S3_ARGUMENTS
from ansible_collections.fediversity.hosting.plugins.modules import garage_admin_tokens, garage_buckets, garage_keys
from lab.garage.background import RunningGarage, running_garage
from support.cutting_proxy import cutting_proxy, first_answer_to

ROOT = Path(__file__).parents[3]
TOKEN = "sentinel-admin-token"
SECRET = "5e4711e1" * 8
KEY = {"name": "fediversity/alice_social_mastodon", "access_key_id": "GK" + "0a" * 12, "secret_access_key": SECRET}
BUCKET = {
    "name": "alice--social--mastodon--media",
    "quotas": {"max_size": 10 * 2**30},
    "permissions": [{"key": KEY["name"], "read": True, "write": True}],
}
EMPTY_BUCKET = {
    "created": 0,
    "aliases": [],
    "keys": {},
    "quotas": {"maxSize": None, "maxObjects": None},
    "website": None,
    "corsRules": None,
    "lifecycleRules": None,
}
ABSENT = {"keys": [{"name": KEY["name"], "state": "absent"}], "buckets": [{"name": BUCKET["name"], "state": "absent"}]}
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def garage(tmp_path: Path) -> Iterator[RunningGarage]:
    with running_garage(tmp_path, admin_token=TOKEN) as running:
        yield running


@pytest.fixture
def run(garage: RunningGarage, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a module in this process and returns what it printed."""

    def run_module(module: Any = garage_buckets, *, check: bool = False, **options: Any) -> dict[str, Any]:
        arguments = {"admin_url": garage.url, "admin_token": TOKEN, **options, "_ansible_check_mode": check}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
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
    assert set(requests(garage)) == {"ListKeys", "ListBuckets", "GetBucketInfo"}
    first = run(keys=[KEY], buckets=[BUCKET])
    assert (first["changed"], first["diff"]) == (True, predicted["diff"])
    bucket, key = first["results"]
    assert (bucket["action"], len(bucket["id"])) == ("create", 64)
    assert (key["action"], key["access_key_id"]) == ("create", KEY["access_key_id"])

    before = len(requests(garage))
    second = run(keys=[KEY], buckets=[BUCKET])
    assert (second["changed"], second["diff"]) == (False, {"before": {}, "after": {}})
    assert len(requests(garage)) - before == 3

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


def test_all_that_a_bucket_can_have(run: Run, garage: RunningGarage) -> None:
    wanted = {
        "name": "media",
        "aliases": ["media.example.org"],
        "local_aliases": [{"key": KEY["name"], "alias": "mine"}],
        "quotas": {"max_size": 2**64 - 1, "max_objects": None},
        "website": {"enabled": True, "error_document": "error.html"},
        "cors_rules": [{"allowed_origins": ["*"], "allowed_methods": ["GET"], "max_age_seconds": 60}],
        "lifecycle_rules": [{"prefix": "", "expiration_date": "2030-01-01"}, {"expiration_days": 3, "prefix": "tmp/"}],
        "permissions": [{"key": KEY["name"], "read": True}],
        "cleanup_incomplete_uploads": 86400,
    }
    predicted = run(check=True, keys=[KEY], buckets=[wanted])
    first = run(keys=[KEY], buckets=[wanted])
    assert not first.get("failed"), first["msg"]
    assert predicted["diff"] == first["diff"]
    assert first["unnamed_buckets"] == []
    assert first["results"][0]["uploads_deleted"] == 0
    row = garage.store.tables["buckets"][first["results"][0]["id"]]
    assert row["aliases"] == ["media", "media.example.org"]
    assert row["corsRules"][0]["MaxAgeSeconds"] == 60
    assert [rule["Status"] for rule in row["lifecycleRules"]] == ["Enabled", "Enabled"]
    assert not run(keys=[KEY], buckets=[wanted])["changed"]


def test_an_export_names_where_it_is(run: Run, garage: RunningGarage, tmp_path: Path) -> None:
    bucket_id = run(keys=[KEY], buckets=[{**BUCKET, "name": "media"}])["results"][0]["id"]
    garage.store.tables.objects.put(bucket_id, "one", b"content")
    going = {"name": "media", "state": "absent", "export_dir": str(tmp_path / "exports")}
    done = run(buckets=[going], s3_endpoint=garage.s3_endpoint, s3_region=garage.region)
    assert not done.get("failed"), done["msg"]
    export = done["results"][0]["export"]
    assert (export["objects"], export["bytes"]) == (1, 7)
    assert Path(export["directory"]).parent == tmp_path / "exports"


def test_remains_of_a_crash_are_in_the_result(run: Run, garage: RunningGarage) -> None:
    with garage.store.change() as tables:
        tables["buckets"]["ab" * 32] = {**EMPTY_BUCKET}
    assert run(buckets=[BUCKET | {"permissions": []}])["unnamed_buckets"] == [
        {"id": "ab" * 32, "created": "1970-01-01T00:00:00Z"}
    ]


def test_life_of_a_key_that_garage_makes(run: Run, garage: RunningGarage, tmp_path: Path) -> None:
    wanted = {
        "name": "fediversity/backup",
        "secret_file": str(tmp_path / "secret"),
        "expiration": "2099-01-01T00:00:00Z",
    }
    predicted = run(garage_keys, check=True, keys=[wanted])
    first = run(garage_keys, keys=[wanted])
    assert (first["changed"], first["diff"]) == (True, predicted["diff"])
    secret = (tmp_path / "secret").read_text(encoding="ascii")
    assert garage.store.tables["keys"][first["results"][0]["access_key_id"]]["secret"] == secret
    again = run(garage_keys, keys=[wanted])
    assert not again["changed"]
    assert secret not in json.dumps([predicted, first, again])
    both = run(garage_keys, keys=[wanted | {"never_expires": True}])
    assert "exclude each other" in both["msg"]
    assert run(garage_keys, keys=[{"name": "fediversity/backup", "state": "absent"}])["changed"]


def test_life_of_a_token(run: Run, garage: RunningGarage, tmp_path: Path) -> None:
    file = tmp_path / "token"
    wanted = {"name": "fediversity/run", "presets": ["run"], "lifetime": 90, "token_file": str(file)}
    predicted = run(garage_admin_tokens, check=True, tokens=[wanted])
    first = run(garage_admin_tokens, tokens=[wanted])
    assert (first["changed"], first["diff"]) == (True, predicted["diff"])
    again = run(garage_admin_tokens, tokens=[wanted])
    assert not again["changed"]
    assert file.read_text(encoding="ascii") not in json.dumps([predicted, first, again])
    used = run(keys=[KEY], buckets=[BUCKET], admin_token=file.read_text(encoding="ascii"))
    assert not used.get("failed"), used["msg"]
    assert file.read_text(encoding="ascii") not in json.dumps(used)
    refused = run(garage_admin_tokens, tokens=[wanted], admin_token=file.read_text(encoding="ascii"))
    assert "scope lacks ListAdminTokens" in refused["msg"]


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


@pytest.mark.parametrize("endpoint", ["ImportKey", "CreateBucket", "UpdateBucket", "AllowBucketKey"])
def test_a_connection_that_is_cut_after_garage_has_committed(run: Run, garage: RunningGarage, endpoint: str) -> None:
    address = urlsplit(garage.url)
    with cutting_proxy((str(address.hostname), int(address.port or 0)), first_answer_to(endpoint.encode())) as proxy:
        done = run(keys=[KEY], buckets=[BUCKET], admin_url=f"http://{proxy.host}:{proxy.port}")
        assert len(proxy.cuts) == 1
    assert not done.get("failed"), done["msg"]
    assert len(garage.store.tables["buckets"]) == len(garage.store.tables["keys"]) == 1
    assert not run(keys=[KEY], buckets=[BUCKET])["changed"]


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
    made_key = {"name": "fediversity/made", "secret_file": str(tmp_path / "secret")}
    made_token = {"name": "fediversity/run", "presets": ["run"], "token_file": str(tmp_path / "token")}
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            {"fediversity.hosting.garage_buckets": {"keys": [KEY], "buckets": [BUCKET]}, "register": "made"},
            {"ansible.builtin.debug": {"var": "made"}},
            {"fediversity.hosting.garage_buckets": {"keys": [KEY], "buckets": [BUCKET]}},
            {"fediversity.hosting.garage_keys": {"keys": [made_key]}, "register": "made"},
            {"fediversity.hosting.garage_admin_tokens": {"tokens": [made_token]}, "register": "tokens"},
            {"ansible.builtin.debug": {"msg": "{{ [made, tokens] }}"}},
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
    assert "changed=3" in done.stdout
    written = [(tmp_path / name).read_text(encoding="ascii") for name in ("secret", "token")]
    assert [text for text in (SECRET, TOKEN, *written) if text in done.stdout + done.stderr] == []
    assert BUCKET["name"] in garage.store.tables["aliases"]


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (garage_buckets, S3_ARGUMENTS | BUCKET_ARGUMENTS),
        (garage_keys, KEY_ARGUMENTS),
        (garage_admin_tokens, TOKEN_ARGUMENTS),
    ],
)
def test_documented_options_are_those_of_the_argument_spec(module: Any, arguments: dict[str, Any]) -> None:
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    documented |= yaml.safe_load(fragment.ModuleDocFragment.DOCUMENTATION)["options"]
    assert options_of(documented, "suboptions") == options_of({**GARAGE_ARGUMENTS, **arguments}, "options")


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


def test_many_keys_do_not_make_it_safe_to_delete_all_buckets(run: Run, garage: RunningGarage) -> None:
    keys = [{**KEY, "name": f"fediversity/{number}", "access_key_id": f"GK{number:024x}"} for number in range(30)]
    rights = [{"key": "fediversity/0", "read": True}]
    names = [f"media-{number}" for number in range(10)]
    run(keys=keys, buckets=[{"name": name, "permissions": rights} for name in names])
    gone = run(buckets=[{"name": name, "state": "absent"} for name in names])
    assert "deletes 10 of 10 items, more than 30 %" in gone["msg"]
    assert len(garage.store.tables["buckets"]) == 10
