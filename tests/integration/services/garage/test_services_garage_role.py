# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role garage through its example: an inventory makes keys and buckets, proves them, and takes them away again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from garage_place import ROOT, Place, Tenant, eventually

EXAMPLE = ROOT / "docs" / "examples" / "garage.yml"


def play(place: Place, tmp_path: Path, *options: str, **variables: Any) -> tuple[int, int, str]:
    """Exit code, changed tasks and output of the example with these variables of its only host."""
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"garage": {"hosts": {"storage1": variables}}}), encoding="utf-8")
    process = place.ansible("-i", str(inventory), str(EXAMPLE), *options)
    output = process.communicate(timeout=600)[0]
    found = re.search(r"changed=(\d+)", output)
    return process.returncode, int(found[1]) if found else -1, output


def test_the_example_runs_and_proves_what_it_made(place: Place, tmp_path: Path) -> None:
    alice, bob = place.tenant("alice"), place.tenant("bob")

    def bucket(what: str, tenant: Tenant) -> dict[str, Any]:
        return {"name": place.name(what), "permissions": [{"key": tenant.name, "read": True, "write": True}]}

    variables: dict[str, Any] = {
        "garage_keys": [alice.option, bob.option],
        "garage_buckets": [bucket("alice", alice), bucket("bob", bob)],
        "garage_prove_access": True,
        "garage_max_delete_percent": 100,
    }
    code, changed, output = play(place, tmp_path, "--check", "--diff", **variables)
    assert (code, changed) == (0, 1), output
    assert not place.exists("alice")
    code, changed, output = play(place, tmp_path, "-vvv", **variables)
    assert (code, changed) == (0, 1), output
    assert not [tenant for tenant in (alice, bob) if tenant.secret_access_key in output]
    code, changed, output = play(place, tmp_path, **variables)
    assert (code, changed) == (0, 0), output

    # more than the inventory says: the module takes back what keys of ours have, and the proof finds what others gave
    place.allow("alice", bob, "read")
    eventually(lambda: bool(place.s3(bob).head_bucket(Bucket=place.name("alice"))))
    proof = {**variables, "garage_buckets": [{"name": place.name("alice")}, *variables["garage_buckets"][1:]]}
    code, _changed, output = play(place, tmp_path, **proof)
    assert code == 0, output
    narrow = {**proof, "garage_buckets": variables["garage_buckets"][1:]}
    code, _changed, output = play(place, tmp_path, **narrow)
    assert code == 2, output
    assert "should not reach" in output

    gone = {
        "garage_keys": [{"name": tenant.name, "state": "absent"} for tenant in (alice, bob)],
        "garage_buckets": [{"name": place.name(what), "state": "absent"} for what in ("alice", "bob")],
        "garage_max_delete_percent": 100,
    }
    code, changed, output = play(place, tmp_path, **gone)
    assert (code, changed) == (0, 1), output
    assert not place.exists("alice")
