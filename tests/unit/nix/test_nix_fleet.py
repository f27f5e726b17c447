# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nix/fleet.nix with the stand-in: data stays data, one evaluation for all, errors name who is wrong."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nix_fleets import HOSTILE, SECRETS_ROOT, example, fleet, instance, machine

ROOT = Path(__file__).resolve().parents[3]
NIXPKGS = ROOT / "tests/lab/nixpkgs"

Nix = Callable[..., subprocess.CompletedProcess[str]]


class Systems:
    """Evaluates and builds a fleet."""

    def __init__(self, nix: Nix, write: Callable[[Any], str]) -> None:
        self.nix = nix
        self.write = write

    def evaluate(self, content: Any, *arguments: str) -> dict[str, dict[str, str]]:
        done = self.nix(
            *("nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode", "-A", "paths"),
            *(str(ROOT / "nix/fleet.nix"), "--argstr", "nixpkgs", str(NIXPKGS)),
            *("--argstr", "fleet", self.write(content), *arguments),
        )
        if done.returncode != 0:
            raise ValueError(done.stderr)
        paths: dict[str, dict[str, str]] = json.loads(done.stdout)
        return paths

    def build(self, content: Any, *arguments: str) -> dict[str, Path]:
        paths = self.evaluate(content, *arguments)
        done = self.nix("nix-store", "--realise", *(entry["drvPath"] for entry in paths.values()))
        assert done.returncode == 0, done.stderr
        return {name: Path(entry["systemPath"]) for name, entry in paths.items()}


@pytest.fixture
def systems(nix: Nix, write_fleet: Callable[[Any], str]) -> Systems:
    return Systems(nix, write_fleet)


def unit(system: Path, name: str) -> str:
    return (system / "etc/systemd/system" / name).read_text(encoding="utf-8")


def test_one_evaluation_gives_the_system_of_every_machine(systems: Systems) -> None:
    built = systems.build(example())
    assert sorted(built) == ["vm-a", "vm-b"]
    assert (built["vm-a"] / "hostname").read_text(encoding="utf-8") == "vm-a\n"
    assert (built["vm-a"] / "network").read_text(encoding="utf-8").splitlines() == [
        "address eth0 10.99.1.10/16",
        "gateway 10.99.0.1",
        "nameserver 10.99.0.11",
    ]
    keys = built["vm-a"] / "etc/ssh/authorized_keys.d/root"
    assert keys.read_text(encoding="utf-8") == "ssh-ed25519 AAAAC3Nz controller\n"
    instances = sorted(path.name for path in (built["vm-b"] / "etc/fediversity/instances").iterdir())
    assert instances == ["bob_video_peertube.json", "carol_pics_pixelfed.json"]
    for name in ("bin/switch-to-configuration", "activate", "init"):
        assert (built["vm-a"] / name).stat().st_mode & 0o111
    assert unit(built["vm-b"], "peertube.service")
    assert unit(built["vm-b"], "phpfpm-pixelfed.service")


def test_a_machine_without_instances_has_a_system(systems: Systems) -> None:
    built = systems.build(fleet(machine("vm-empty")))
    assert not (built["vm-empty"] / "etc/systemd/system/nginx.service").exists()


def test_only_the_wanted_machines_are_evaluated(systems: Systems) -> None:
    content = example()
    content["machines"]["vm-b"]["instances"][0]["nixosOptions"] = {"nonsense": 1}
    assert list(systems.evaluate(content, "--arg", "machines", '[ "vm-a" ]')) == ["vm-a"]
    with pytest.raises(ValueError, match='The fleet file has no machine "vm-z"'):
        systems.evaluate(content, "--arg", "machines", '[ "vm-z" ]')


def test_the_same_input_gives_the_same_system_and_other_machines_stay(systems: Systems) -> None:
    content = example()
    before = systems.evaluate(content)
    changed = copy.deepcopy(content)
    changed["machines"]["vm-b"]["instances"][0]["settings"] = {"title": "New"}
    after = systems.evaluate(changed)
    assert systems.evaluate(content) == before
    assert after["vm-a"] == before["vm-a"]
    assert after["vm-b"]["systemPath"] != before["vm-b"]["systemPath"]


@pytest.mark.parametrize("application", ["mastodon", "peertube", "pixelfed"])
def test_hostile_customer_text_is_data(systems: Systems, application: str) -> None:
    entry = instance(
        "mallory",
        "x",
        application,
        operatorDisplayName=HOSTILE,
        settings={"title": HOSTILE, "description": HOSTILE},
    )
    system = systems.build(fleet(machine("vm-m", entry)))["vm-m"]
    described = json.loads((system / f"etc/fediversity/instances/mallory_x_{application}.json").read_bytes())
    assert described["operatorDisplayName"] == HOSTILE
    assert described["settings"] == {"title": HOSTILE, "description": HOSTILE}
    for path in (system / "etc/systemd/system").glob("*.service"):
        assert "lookup" not in path.read_text(encoding="utf-8")


def test_a_display_name_does_not_change_any_unit(systems: Systems) -> None:
    one = systems.build(fleet(machine("vm", instance("a", "b", "pixelfed", operatorDisplayName="One"))))["vm"]
    two = systems.build(fleet(machine("vm", instance("a", "b", "pixelfed", operatorDisplayName=HOSTILE))))["vm"]
    units = sorted(path.name for path in (one / "etc/systemd/system").glob("*.service"))
    assert [unit(one, name) for name in units] == [unit(two, name) for name in units]


@pytest.mark.parametrize(
    ("application", "holders"),
    [
        ("mastodon", ["mastodon-web", "mastodon-sidekiq-all", "mastodon-streaming-1"]),
        ("peertube", ["peertube"]),
        ("pixelfed", ["phpfpm-pixelfed", "pixelfed-horizon", "pixelfed-data-setup"]),
    ],
)
def test_a_rotation_changes_the_units_that_hold_the_secrets_and_no_other(
    systems: Systems, application: str, holders: list[str]
) -> None:
    old, new = (
        systems.build(fleet(machine("vm", instance("a", "b", application, secretsRevision=revision))))["vm"]
        for revision in (1, 2)
    )
    for name in [*holders, f"fediversity-secrets-a_b_{application}"]:
        assert unit(old, f"{name}.service") != unit(new, f"{name}.service")
        assert unit(old, f"{name}.service").count("X-Restart-Triggers=") == 1
    assert unit(old, "nginx.service") == unit(new, "nginx.service")


@pytest.mark.parametrize(
    ("application", "files"), [("mastodon", {"secret-key-base"}), ("peertube", {"secret"}), ("pixelfed", set())]
)
def test_the_services_user_reads_its_secrets_and_cannot_put_anything_in_their_place(
    systems: Systems, tmp_path: Path, application: str, files: set[str]
) -> None:
    """systemd reads the environment file as root: a link in its place would give away another instance's secrets."""
    name = f"a_b_{application}"
    system = systems.build(fleet(machine("vm", instance("a", "b", application))))["vm"]
    lines = unit(system, f"fediversity-secrets-{name}.service").splitlines()
    (start,) = (line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart="))
    script = Path(start).read_text(encoding="utf-8")
    for secret in set(re.findall(rf"{SECRETS_ROOT}/{name}/([a-z0-9-]+)", script)):
        (tmp_path / "secrets" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "secrets" / name / secret).write_text("swordfish", encoding="utf-8")
    given_away = [line for line in script.splitlines() if " -o " in line or "chown" in line]
    assert all(line.startswith("install -m 0400 -o ") for line in given_away)
    here = script.replace(SECRETS_ROOT, str(tmp_path / "secrets")).replace("/run/fediversity", str(tmp_path / "run"))
    done = subprocess.run(
        ["sh", "-c", re.sub(r" -o \S+", f" -o {os.getuid()}", here)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    directory = tmp_path / "run" / name
    assert directory.stat().st_mode & 0o777 == 0o711
    assert (directory / "environment").stat().st_mode & 0o777 == 0o600
    assert files <= {path.name for path in directory.iterdir() if path.stat().st_mode & 0o777 == 0o400}


def test_settings_reach_the_units_that_apply_them(systems: Systems) -> None:
    old, new = (
        systems.build(fleet(machine("vm", instance("a", "b", "mastodon", settings={"title": title}))))["vm"]
        for title in ("One", "Two")
    )
    assert unit(old, "mastodon-settings.service") != unit(new, "mastodon-settings.service")
    assert unit(old, "mastodon-web.service") == unit(new, "mastodon-web.service")


def test_plain_options_of_the_hosting_provider_override_the_defaults(systems: Systems) -> None:
    options = {
        "networking": {"interfaces": {"eth0": {"ipv4": {"addresses": [{"address": "192.0.2.7", "prefixLength": 24}]}}}},
        "services": {"mastodon": {"streamingProcesses": 2}},
    }
    system = systems.build(fleet(machine("vm", instance("a", "b", "mastodon", nixosOptions=options))))["vm"]
    assert "address eth0 192.0.2.7/24" in (system / "network").read_text(encoding="utf-8")
    assert unit(system, "mastodon-streaming-2.service")


def test_extra_modules_apply_to_every_machine(systems: Systems, tmp_path: Path) -> None:
    module = tmp_path / "extra.nix"
    module.write_text('{ environment.etc.extra.text = "yes"; }', encoding="utf-8")
    built = systems.build(example(), "--arg", "extraModules", f'[ "{module}" ]')
    assert [(built[name] / "etc/extra").read_text(encoding="utf-8") for name in sorted(built)] == ["yes", "yes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"services": {"mastodon": {"localDomian": "x"}}}, "The option `services.mastodon.localDomian' does not exist"),
        ({"services": {"mastodon": {"webPort": 1, "x": {"y": 2}}}}, "services.mastodon."),
        ({"networking": {"hostName": 5}}, "networking.hostName' is not of type"),
    ],
)
def test_a_wrong_option_is_reported_with_its_instance(systems: Systems, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match="nixos_options of a_b_mastodon") as caught:
        systems.evaluate(fleet(machine("vm", instance("a", "b", "mastodon", nixosOptions=options))))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("application", "message"),
    [
        ("friendica", "is not in the catalogue"),
        ("../mastodon", "is no valid name"),
        ("${x}", "is no valid name"),
    ],
)
def test_an_unknown_application_is_refused(systems: Systems, application: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        systems.evaluate(fleet(machine("vm", instance("a", "b", application))))


def test_the_fleet_file_is_typed(systems: Systems) -> None:
    content = fleet(machine("vm", instance("a", "b", "mastodon", secretsRevision="two")))
    with pytest.raises(ValueError, match="secretsRevision' is not of type") as caught:
        systems.evaluate(content)
    assert "fleet file, application instance a_b_mastodon" in str(caught.value)
    with pytest.raises(ValueError, match="The fleet file has version 2"):
        systems.evaluate({**example(), "version": 2})


def test_no_secret_and_no_secret_file_content_is_in_the_public_description(systems: Systems) -> None:
    system = systems.build(example())["vm-a"]
    text = (system / "etc/fediversity/instances/alice_social_mastodon.json").read_text(encoding="utf-8")
    assert "/var/lib/fediversity/secrets" not in text
    assert "contact" not in json.loads(text)
