# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets are looked for where they must not be: in output with -vvv, results, diffs, logs, and files of others."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from garage_place import Place, eventually


def test_no_secret_is_shown(place: Place, tmp_path: Path) -> None:
    tenant, wrong = place.tenant("app"), place.tenant("wrong")
    given = {"secret": tenant.secret_access_key, "wrong": wrong.secret_access_key}
    file, token_file = tmp_path / "secret", tmp_path / "token"
    name = place.name("media")
    bucket = {"name": name, "permissions": [{"key": tenant.name, "read": True, "write": True}]}
    made = f"fediversity/{place.name('made')}"
    key = {"access_key_id": tenant.access_key_id, "secret_access_key": "{{ secret }}"}
    steps: list[dict[str, Any]] = [
        {"garage_buckets": {"keys": [{"name": tenant.name, **key}], "buckets": [bucket]}},
        # refused: no id of a key, no name of ours
        {"garage_buckets": {"keys": [{**key, "name": "nobody"}, {"name": wrong.name, **key, "access_key_id": "x"}]}},
        {"garage_keys": {"keys": [{"name": made, "secret_file": str(file)}]}},
        {"garage_keys": {"keys": [{"name": made, "secret_file": str(file), "create_bucket": True}]}},
        {"garage_admin_tokens": {"tokens": [{"name": made, "presets": ["run"], "token_file": str(token_file)}]}},
        {"garage_access": {"keys": [{**key, "buckets": [{"name": name, "read": True, "write": True}]}]}},
        {"garage_access": {"keys": [{**key, "secret_access_key": "{{ wrong }}", "refused": [name]}]}},
        {"garage_buckets": {"buckets": [bucket], "admin_token": "{{ wrong }}"}},
        {"garage_buckets": {"buckets": [{"name": name, "state": "absent", "export_dir": str(tmp_path / "exports")}]}},
    ]
    variables, playbook, results = tmp_path / "vars.json", tmp_path / "play.yml", tmp_path / "results.json"
    variables.write_text(json.dumps(given), encoding="utf-8")
    tasks: list[dict[str, Any]] = [
        {
            **{f"fediversity.hosting.{module}": arguments for module, arguments in step.items()},
            "register": f"result_{number}",
            "ignore_errors": True,
        }
        for number, step in enumerate(steps)
    ]
    kept = "{{ [" + ", ".join(task["register"] for task in tasks) + "] | to_json }}"
    tasks.append({"ansible.builtin.copy": {"content": kept, "dest": str(results), "mode": "0600"}})
    play = {"hosts": "localhost", "gather_facts": False, "vars_files": [str(variables)], "tasks": tasks}
    playbook.write_text(json.dumps([play]), encoding="utf-8")
    process = place.ansible("-vvv", "--diff", "-i", "localhost,", str(playbook))
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output

    texts = {"output": output, "results": results.read_text(encoding="utf-8")}
    if place.private is not None:
        texts["log"] = place.private.log
    for path in (tmp_path / "exports").rglob("*"):
        if path.is_file():
            texts[path.name] = path.read_text(encoding="utf-8")
    hidden = {
        **given,
        "secret of the made key": file.read_text(encoding="utf-8"),
        "token": token_file.read_text(encoding="utf-8"),
        "admin token": place.environment["GARAGE_ADMIN_TOKEN"],
    }
    found = [
        f"{secret} in {where}" for where, text in texts.items() for secret, value in hidden.items() if value in text
    ]
    assert found == []
    failed = [bool(result.get("failed")) for result in json.loads(texts["results"])]
    assert failed == [False, True, False, False, False, False, True, True, False]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, token_file)] == [0o600, 0o600]
    # the sentinels were really in use
    eventually(lambda: bool(place.s3(tenant).list_buckets()))
