# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No secret in anything that was printed or written in the clear; runs last, over all output of the other tests."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from lab.story import ROOT

pytestmark = pytest.mark.lab

REVEAL = """
import json, os
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import load_catalogue, secret_specs
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import load_fleet
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.secrets import SecretStore, load_keys
engine = connect(os.environ["FEDIVERSITY_DATABASE_URL"])
catalogue = load_catalogue()
refs = [
    spec.ref
    for instance in load_fleet(engine).instances.values()
    if instance.state == "enabled"
    for spec in secret_specs(catalogue[instance.application], instance.id)
]
store = SecretStore(engine, load_keys(None, os.environ["FEDIVERSITY_SECRET_KEY_FILE"]))
backends = ("PGPASSWORD", "PROXMOX_TOKEN_SECRET", "GARAGE_ADMIN_TOKEN", "DNS_TSIG_SECRET")
key = open(os.environ["FEDIVERSITY_SECRET_KEY_FILE"], encoding="utf-8").read().strip()
print(json.dumps({**store.get(refs), **{name: os.environ[name] for name in backends}, "encryption key": key}))
"""


@pytest.fixture(scope="module")
def sentinels(converged: Any) -> dict[str, str]:
    """Every secret of the lab by name."""
    run = converged.estate.lab.execute("env", f"PYTHONPATH={ROOT / 'collections'}", "python", "-c", REVEAL)
    assert run.code == 0, run.output
    # public by design: the public halves of key pairs are served to everybody
    return {name: value for name, value in json.loads(run.output).items() if not name.endswith("-public-key")}


def test_there_is_something_to_look_for(sentinels: dict[str, str]) -> None:
    assert len(sentinels) > 10
    assert all(len(value) >= 12 for value in sentinels.values())
    assert any(name.endswith("/database-password") for name in sentinels)


def test_no_secret_was_ever_printed(converged: Any, sentinels: dict[str, str]) -> None:
    printed = "\n".join(converged.estate.transcript)
    assert "PLAY RECAP" in printed
    leaks = [name for name, value in sentinels.items() if value in printed or json.dumps(value)[1:-1] in printed]
    assert leaks == []


def files_with(estate: Any, sentinels: dict[str, str], place: str, prefix: tuple[str, ...]) -> list[str]:
    """Files below *place* that hold any of the secrets, searched by grep through its standard input."""
    patterns = "\n".join(line for value in sentinels.values() for line in value.splitlines() if len(line) >= 12)
    script = f"printf %s {shlex.quote(patterns)} | grep -rlF -f - {place} || [ $? = 1 ]"
    run = estate.lab.command(*prefix, "sh", "-c", script)
    assert run.code == 0, run.output
    return [line for line in run.output.splitlines() if line]


def test_no_secret_is_in_the_nix_store_or_the_controllers_files(converged: Any, sentinels: dict[str, str]) -> None:
    estate = converged.estate
    stored = {name: value for name, value in sentinels.items() if "/" in name}
    assert files_with(estate, stored, "/nix", ("exec", "--")) == []
    assert (
        files_with(estate, stored, '"$FEDIVERSITY_STATE_DIR" "${FEDIVERSITY_DATABASE_URL#sqlite:///}"', ("exec", "--"))
        == []
    )


@pytest.mark.parametrize("host", ["existing1"])
def test_a_machine_holds_only_its_own_secrets_and_nobody_else_reads_them(
    converged: Any, sentinels: dict[str, str], host: str
) -> None:
    estate = converged.estate
    own = {name: value for name, value in sentinels.items() if name.startswith("dora_")}
    assert own
    found = files_with(estate, own, "/nix /etc /var /tmp /root", ("run", host, "--"))
    # the environment file that the application itself wants in its own folder
    assert {path for path in found if not path.startswith("/var/lib/fediversity/secrets/")} <= {
        "/var/lib/pixelfed/.env"
    }
    assert len(found) > len(own)
    modes = estate.lab.command("run", host, "--", "stat", "-c", "%a", *found).output.split()
    assert all(mode.endswith("00") for mode in modes)
    user = ("setpriv", "--reuid", "pixelfed", "--regid", "pixelfed", "--clear-groups")
    folder = "/run/fediversity/dora_gallery_pixelfed"
    for command in (f"cat {folder}/environment", f"rm -f {folder}/environment", f"ln -s /etc/shadow {folder}/other"):
        run = estate.lab.command("run", host, "--", *user, *command.split())
        assert (run.code, "Permission denied" in run.output) == (1, True), command
    others = {name: value for name, value in sentinels.items() if "/" in name and not name.startswith("dora_")}
    assert files_with(estate, others, "/nix /etc /var /tmp /root", ("run", host, "--")) == []
