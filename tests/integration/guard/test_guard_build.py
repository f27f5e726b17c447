# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Systems that nixos_rebuild builds: on the controller, on the machine, on another host; from files and flakes."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guard_lab import ADDRESS, ROOT, Deployment, GuardedHost

pytestmark = pytest.mark.lab

BUILDER, BUILDER_ADDRESS = "dns1", "10.99.0.11"
LIMITS = {"confirm_timeout": 5, "activation_timeout": 20, "connect_timeout": 60}
DEFAULT_NIX = """\
{ system ? builtins.currentSystem }:
let
  machine = text: extra: import ./nixpkgs/nixos/lib/eval-config.nix {
    inherit system;
    modules = [
      ./nix/modules/machine.nix
      {
        fediversity.machine = builtins.fromJSON (builtins.readFile ./machine.json);
        environment.etc."guard-test".text = "${text}\\n";
      }
      extra
    ];
  };
  fails = command: derivation { inherit system; name = "fails"; builder = "/bin/sh"; args = [ "-c" command ]; };
  built = command: { environment.etc."built".text = "${fails command}"; };
in
{
  one = machine "one" { };
  two = machine "two" { };
  three = machine "three" { };
  refused = throw "this machine is not ready yet";
  wrong = machine "wrong" { networking.nothing = true; };
  unbuildable = machine "unbuildable" (built "echo about to fail; exit 3");
  slow = machine "slow" (built "/usr/bin/sleep 8; exit 1");
}
"""
FLAKE_NIX = """\
{
  outputs = { self }: {
    nixosConfigurations = import ./default.nix { system = "SYSTEM"; } // {
      "10.99.0.20" = self.nixosConfigurations.three;
    };
  };
}
"""


@pytest.fixture(scope="module")
def configuration(guarded_lab: GuardedHost) -> Path:
    """A directory with all that its systems need, the stand-in for nixpkgs too."""
    directory = guarded_lab.scratch / "a fleet's files"
    shutil.copytree(ROOT / "tests/lab/nixpkgs", directory / "nixpkgs")
    shutil.copytree(ROOT / "nix/modules", directory / "nix/modules")
    key = guarded_lab.scratch.joinpath("lab/id_ed25519.pub").read_text(encoding="utf-8").strip()
    machine = {
        "address": ADDRESS,
        "hostName": "existing1",
        "prefixLength": 16,
        "gateway": "10.99.0.1",
        "nameservers": [BUILDER_ADDRESS],
        "authorizedKeys": [key],
    }
    (directory / "machine.json").write_text(json.dumps(machine), encoding="utf-8")
    (directory / "default.nix").write_text(DEFAULT_NIX, encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def flake(guarded_lab: GuardedHost, configuration: Path) -> Path:
    """The same as a flake, whose path Nix can read."""
    directory = guarded_lab.scratch / "flake"
    shutil.copytree(configuration, directory)
    text = FLAKE_NIX.replace("SYSTEM", f"{platform.machine()}-linux")
    (directory / "flake.nix").write_text(text, encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def without_nix(guarded_lab: GuardedHost) -> GuardedHost:
    """The same lab with a controller that has no Nix."""
    programs = guarded_lab.scratch / "programs"
    programs.mkdir()
    for directory in ("/usr/local/bin", "/usr/bin", "/usr/sbin"):
        for program in Path(directory).iterdir():
            if not program.name.startswith("nix") and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    return dataclasses.replace(guarded_lab, environment={**guarded_lab.environment, "PATH": str(programs)})


@pytest.fixture(autouse=True)
def nothing_left_behind(host: GuardedHost) -> Iterator[None]:
    """No host keeps a copy of the configuration, whatever happened."""
    yield
    for name in ("existing1", BUILDER):
        assert on(host, name, "ls -d /var/tmp/fediversity-build.* 2>/dev/null || true") == ""


def rebuild(host: GuardedHost, *options: str, **arguments: Any) -> Deployment:
    inventory = ("-i", f"{BUILDER_ADDRESS},", "--limit", ADDRESS)
    return host.start("nixos_rebuild", {**LIMITS, **arguments}, *inventory, *options)


def on(host: GuardedHost, name: str, script: str) -> str:
    """Run as root of any host of the lab."""
    command = [str(ROOT / "lab"), "run", name, "--", "sh", "-c", script]
    return subprocess.run(
        command, env=host.environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60
    ).stdout


def runs(host: GuardedHost, result: dict[str, Any], text: str) -> bool:
    """The machine runs what was built, committed."""
    assert (result["failed"], result.get("phase")) == (False, "committed"), result
    look = "readlink -f /run/current-system /nix/var/nix/profiles/system; cat /etc/guard-test"
    return host.shell(look).split() == [result["new"], result["new"], text]


def test_file_built_on_the_controller(host: GuardedHost, configuration: Path) -> None:
    assert runs(host, rebuild(host, file=str(configuration), attr="one").result(), "one")
    result = rebuild(host, file=str(configuration / "default.nix"), attr="one").result()
    assert (result["changed"], result["phase"]) == (False, "unchanged")


def test_file_built_on_the_machine_by_a_controller_without_nix(
    host: GuardedHost, without_nix: GuardedHost, configuration: Path
) -> None:
    arguments = {"file": str(configuration), "attr": "two"}
    run = rebuild(without_nix, **arguments, build_on="target")
    assert runs(host, run.result(), "two")
    assert "building two of" in run.output.read_text(encoding="utf-8")
    root = on(host, "existing1", f"readlink /root/.local/state/fediversity/systems/{ADDRESS}").strip()
    assert root == run.result()["new"]
    result = rebuild(without_nix, **arguments).result()
    assert "Nix is not installed on the controller" in result["msg"]


def test_built_on_another_host_and_relayed_without_nix(
    host: GuardedHost, without_nix: GuardedHost, configuration: Path
) -> None:
    arguments = {"file": str(configuration), "attr": "three", "build_on": BUILDER_ADDRESS}
    run = rebuild(without_nix, **arguments)
    result = run.result()
    assert runs(host, result, "three")
    assert f"store paths from {BUILDER_ADDRESS}" in run.output.read_text(encoding="utf-8")
    closure = on(host, BUILDER, f"nix-store --query --requisites {result['new']}")
    assert host.shell(f"nix-store --query --requisites {result['new']}") == closure
    assert host.shell("nix-store --verify --check-contents 2>&1 | grep -c modified || true").strip() == "0"


@pytest.mark.parametrize("build_on", ["controller", "target", BUILDER_ADDRESS])
def test_flake_by_path(host: GuardedHost, flake: Path, build_on: str) -> None:
    assert runs(host, rebuild(host, flake=str(flake), build_on=build_on).result(), "three")
    assert runs(host, rebuild(host, flake=str(flake), attr="two", build_on=build_on).result(), "two")


@pytest.mark.parametrize("build_on", ["controller", "target", BUILDER_ADDRESS])
def test_check_mode_tells_the_store_path_and_builds_nothing(
    host: GuardedHost, configuration: Path, build_on: str
) -> None:
    text = configuration / "default.nix"
    changed = configuration.parent / f"check-{build_on}"
    shutil.copytree(configuration, changed)
    (changed / "default.nix").write_text(
        text.read_text(encoding="utf-8").replace('"one"', f'"check {build_on}"'), encoding="utf-8"
    )
    journal = host.journal()
    arguments = {"file": str(changed), "attr": "one", "build_on": build_on}
    planned = rebuild(host, "--check", "--diff", **arguments).result()
    assert (planned["failed"], planned["changed"], planned["phase"]) == (False, True, "planned")
    for name in ("existing1", BUILDER):
        assert on(host, name, f"ls -d {planned['new']} 2>/dev/null || true") == ""
    assert host.journal() == journal
    assert rebuild(host, **arguments).result()["new"] == planned["new"]


@pytest.mark.parametrize("build_on", ["controller", "target"])
def test_failures_carry_what_nix_says(host: GuardedHost, configuration: Path, build_on: str) -> None:
    for attr, text in (
        ("refused", "this machine is not ready yet"),
        ("wrong", "networking.nothing"),
        ("none", "attribute 'none' in selection path"),
        ("unbuildable", "about to fail"),
    ):
        result = rebuild(host, file=str(configuration), attr=attr, build_on=build_on).result()
        assert result["failed"]
        assert text in result["msg"]
        assert "show-trace" not in result["msg"]


def test_refusals(host: GuardedHost, configuration: Path) -> None:
    for arguments, text in (
        ({"flake": "--impure"}, "is not a flake reference"),
        ({"flake": str(configuration), "attr": 'a${"b"}'}, "is not a path that Nix takes for a flake"),
        ({"file": str(configuration), "attr": 'a"b'}, "is not an attribute path"),
        ({"file": str(configuration), "attr": '"${builtins.abort "x"}"'}, "is not an attribute path"),
        ({"flake": "/srv/x", "attr": 'a"${"b"}'}, "cannot be a name in nixosConfigurations"),
        ({"file": str(configuration), "build_on": "nowhere"}, "the inventory has no host 'nowhere'"),
        ({"file": str(configuration / "none"), "build_on": "target"}, "does not exist"),
        ({"file": "/a", "flake": "/b"}, "mutually exclusive"),
        ({}, "one of the following is required"),
        ({"attr": "a", "system": host.systems["base"]}, "attr"),
    ):
        result = rebuild(host, **arguments).result()
        assert result["failed"]
        assert text in result["msg"]


def test_a_killed_controller_leaves_no_copy(host: GuardedHost, configuration: Path) -> None:
    run = rebuild(host, file=str(configuration), attr="slow", build_on=BUILDER_ADDRESS)
    for _look in range(200):
        if on(host, BUILDER, "pgrep -x sleep || true"):
            break
        time.sleep(0.1)
    else:
        raise AssertionError(run.output.read_text(encoding="utf-8"))
    run.kill()
    for _look in range(200):
        if not on(host, BUILDER, "ls -d /var/tmp/fediversity-build.* 2>/dev/null || true"):
            break
        time.sleep(0.1)
