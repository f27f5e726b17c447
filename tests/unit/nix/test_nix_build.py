# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nix_build: one evaluation, one build, culprits apart; real Nix in a store of the tests' own."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError
from ansible_collections.fediversity.hosting.plugins.module_utils.nixos.build import (
    Evaluation,
    Fleet,
    build,
    evaluate,
    predict,
    result,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.nixos.nix import Nix, error_text, nix_value
from nix_fleets import HOSTILE, example, fleet, instance, machine

ROOT = Path(__file__).resolve().parents[3]
NIXPKGS = ROOT / "tests/lab/nixpkgs"
BROKEN_BUILD = """
{ config, lib, pkgs, ... }: {
  environment.etc.broken = lib.mkIf (config.networking.hostName == "vm-b") {
    source = pkgs.tree "broken" [ { target = "a b"; link = "x"; } { target = "a"; source = "/does/not/exist"; } ];
  };
}
"""


class Recorder:
    """The subprocess gate; remembers the commands."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        self.commands.append([os.path.basename(command[0]), *command[1:]])
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def named(self, name: str, word: str = "") -> list[list[str]]:
        return [command for command in self.commands if command[0] == name and (not word or word in command)]


@pytest.fixture
def recorder(nix_environment: dict[str, str]) -> Recorder:
    return Recorder(nix_environment)


@pytest.fixture
def source(write_fleet: Callable[[Any], str]) -> Callable[..., Fleet]:
    def make(content: Any, *extra: str) -> Fleet:
        return Fleet(str(ROOT / "nix/fleet.nix"), write_fleet(content), str(NIXPKGS), extra)

    return make


def unique(content: Any, mark: str) -> Any:
    """The fleet with systems that no other test has built."""
    for entry in content["machines"].values():
        entry["nameservers"] = [f"192.0.2.1 # {mark}"]
    return content


def test_one_evaluation_and_one_build_for_all_machines(
    recorder: Recorder, source: Callable[..., Fleet], tmp_path: Path
) -> None:
    nix = Nix(recorder)
    evaluation = evaluate(nix, source(unique(example(), "all")), ["vm-a", "vm-b"], write=True)
    assert predict(nix, evaluation, {}) == {"vm-a", "vm-b"}
    roots = tmp_path / "roots"
    built, final = build(nix, evaluation, {}, str(roots))
    assert built == {"vm-a", "vm-b"}
    assert final == evaluation
    assert len(recorder.named("nix-instantiate")) == 1
    assert len(recorder.named("nix-store", "--keep-going")) == 1
    assert {link.name: os.readlink(link) for link in roots.iterdir()} == {
        name: system.path for name, system in evaluation.systems.items()
    }
    again, _final = build(nix, evaluation, {}, str(roots))
    assert again == set()


def test_what_is_known_is_not_built(recorder: Recorder, source: Callable[..., Fleet], tmp_path: Path) -> None:
    nix = Nix(recorder)
    evaluation = evaluate(nix, source(unique(example(), "known")), ["vm-a", "vm-b"], write=True)
    known = {"vm-a": evaluation.systems["vm-a"].path, "vm-b": "/nix/store/old"}
    built, final = build(nix, evaluation, known, str(tmp_path / "roots"))
    assert built == {"vm-b"}
    assert nix.invalid([evaluation.systems["vm-a"].path])
    outcome = result(["vm-a", "vm-b"], final, built, known, check=False)
    assert outcome["changed_machines"] == ["vm-b"]
    assert [item["action"] for item in outcome["results"]] == ["unchanged", "build"]
    recorder.commands.clear()
    everything = {name: system.path for name, system in evaluation.systems.items()}
    assert build(nix, evaluation, everything, str(tmp_path / "roots"))[0] == set()
    assert recorder.commands == []


def test_a_machine_that_cannot_be_evaluated_does_not_stop_the_others(
    recorder: Recorder, source: Callable[..., Fleet]
) -> None:
    content = example()
    content["machines"]["vm-c"] = machine(
        "vm-c", instance("eve", "x", "pixelfed", nixosOptions={"services": {"pixelfed": {"typo": 1}}})
    )
    evaluation = evaluate(Nix(recorder), source(content), sorted(content["machines"]), write=True)
    assert sorted(evaluation.systems) == ["vm-a", "vm-b"]
    message = str(evaluation.errors["vm-c"])
    assert message.startswith("vm-c: The option `services.pixelfed.typo' does not exist")
    assert "nixos_options of eve_x_pixelfed" in message
    assert "\x1b" not in message
    assert "show-trace" not in message


def test_a_machine_that_cannot_be_built_does_not_stop_the_others(
    recorder: Recorder, source: Callable[..., Fleet], tmp_path: Path
) -> None:
    module = tmp_path / "broken.nix"
    module.write_text(BROKEN_BUILD, encoding="utf-8")
    nix = Nix(recorder)
    evaluation = evaluate(nix, source(unique(example(), "broken"), str(module)), ["vm-a", "vm-b"], write=True)
    built, final = build(nix, evaluation, {}, str(tmp_path / "roots"))
    assert built == {"vm-a"}
    assert sorted(final.systems) == ["vm-a"]
    message = str(final.errors["vm-b"])
    assert message.startswith("vm-b: the system cannot be built: builder for '")
    assert "-broken.drv' failed" in message
    assert "/does/not/exist" in message
    assert sorted(path.name for path in (tmp_path / "roots").iterdir()) == ["vm-a"]
    outcome = result(["vm-a", "vm-b"], final, built, {}, check=False)
    assert outcome["failed"]
    assert outcome["systems"] == {"vm-a": final.systems["vm-a"].path}
    assert outcome["changed_machines"] == ["vm-a"]


def test_settings_of_nix_reach_every_command(recorder: Recorder, source: Callable[..., Fleet], tmp_path: Path) -> None:
    nix = Nix(recorder, options={"max-jobs": "1"})
    evaluation = evaluate(nix, source(unique(example(), "options")), ["vm-a"], write=True)
    build(nix, evaluation, {}, str(tmp_path / "roots"))
    assert recorder.commands
    for command in recorder.commands:
        position = command.index("--option")
        assert command[position : position + 3] == ["--option", "max-jobs", "1"]


def test_a_failure_of_the_root_is_reported(recorder: Recorder, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="gone"):
        Nix(recorder).add_root(f"{recorder.environment['NIX_STORE_DIR']}/{'0' * 32}-gone", str(tmp_path / "x"))


@pytest.mark.parametrize("text", [HOSTILE, "", 'a"b', "${x}", "$${x}", "\\", "''", "$"])
def test_texts_reach_nix_unchanged(recorder: Recorder, text: str) -> None:
    code, output, error = recorder(
        ["nix-instantiate", "--eval", "--strict", "--json", "-E", nix_value([text, "second"])]
    )
    assert code == 0, error
    assert json.loads(output) == [text, "second"]


def test_values_that_nix_cannot_hold() -> None:
    assert nix_value(None) == "null"
    with pytest.raises(ValueError, match="control character"):
        nix_value("a\x00b")


def test_error_text_is_for_people() -> None:
    raw = (
        "warning: the group 'nixbld' does not exist\n\x1b[31;1merror:\x1b[0m undefined variable 'x'\n\n"
        "       at /a.nix:1:2:\n(use '--show-trace' to show detailed location information)\n"
    )
    assert error_text(raw) == "undefined variable 'x'\n\n       at /a.nix:1:2:"
    assert error_text("error: " + "x" * 9000).endswith(" …")


def test_an_empty_fleet_is_fine(recorder: Recorder, tmp_path: Path) -> None:
    assert build(Nix(recorder), Evaluation({}), {}, str(tmp_path / "roots")) == (set(), Evaluation({}))
    assert recorder.commands == []


# --- the module itself, run as Ansible runs it -------------------------------------------------------------------


class Module:
    """Runs nix_build with the given parameters."""

    def __init__(self, environment: dict[str, str], defaults: dict[str, Any]) -> None:
        self.environment = environment
        self.defaults = defaults

    def __call__(self, check: bool = False, environment: dict[str, str] | None = None, **changes: Any) -> Any:
        arguments = {**self.defaults, **changes, "_ansible_check_mode": check}
        arguments = {name: value for name, value in arguments.items() if value is not None}
        done = subprocess.run(
            [sys.executable, "-m", "ansible_collections.fediversity.hosting.plugins.modules.nix_build"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env={"PYTHONPATH": str(ROOT / "collections"), **self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def module(nix_environment: dict[str, str], write_fleet: Callable[[Any], str], tmp_path: Path) -> Module:
    defaults = {
        "fleet": write_fleet(unique(example(), str(tmp_path))),
        "expression": str(ROOT / "nix/fleet.nix"),
        "nixpkgs": str(NIXPKGS),
        "gc_roots": str(tmp_path / "roots"),
    }
    return Module(nix_environment, defaults)


def test_the_module_builds_predicts_and_is_idempotent(module: Module, tmp_path: Path) -> None:
    predicted = module(check=True)
    assert (predicted["changed"], predicted["changed_machines"]) == (True, ["vm-a", "vm-b"])
    assert not any(Path(path).exists() for path in predicted["systems"].values())
    assert not (tmp_path / "roots").exists()
    first = module()
    assert (first["changed"], first["changed_machines"]) == (True, ["vm-a", "vm-b"])
    assert first["systems"] == predicted["systems"]
    assert all(Path(path).is_dir() for path in first["systems"].values())
    second = module(known=first["systems"])
    assert (second["changed"], second["changed_machines"]) == (False, [])
    assert second["systems"] == first["systems"]
    assert module(check=True, known={})["changed"] is False


def test_the_module_takes_nixpkgs_from_the_environment(module: Module) -> None:
    assert module(check=True, nixpkgs=None, environment={"FEDIVERSITY_NIXPKGS": str(NIXPKGS)})["systems"]
    assert "nixpkgs" in module(check=True, nixpkgs=None)["msg"]


def test_the_module_fails_with_what_could_be_done(module: Module, write_fleet: Callable[[Any], str]) -> None:
    content = copy.deepcopy(unique(example(), "half"))
    content["machines"]["vm-a"]["instances"][0]["nixosOptions"] = {"no": {"such": "option"}}
    outcome = module(fleet=write_fleet(content))
    assert outcome["failed"] is True
    assert outcome["changed_machines"] == ["vm-b"]
    assert "vm-a: The option `no' does not exist" in outcome["msg"]
    assert [item["failed"] for item in outcome["results"]] == [True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nixpkgs": "/does/not/exist"}, "option nixpkgs: /does/not/exist/nixos/lib/eval-config.nix does not exist"),
        ({"expression": "/does/not/exist.nix"}, "option expression: /does/not/exist.nix does not exist"),
        ({"fleet": "/does/not/exist.json"}, "/does/not/exist.json: the fleet file cannot be read"),
        ({"machines": ["vm-z"]}, "the fleet file has no machine vm-z"),
    ],
)
def test_the_module_refuses_wrong_input(module: Module, changes: dict[str, Any], message: str) -> None:
    outcome = module(**changes)
    assert outcome["failed"] is True
    assert message in outcome["msg"]


def test_a_missing_nix_is_named_with_what_to_do(module: Module, tmp_path: Path) -> None:
    # get_bin_path also looks into the usual system directories: a PATH without Nix is not enough where it is installed
    code = (
        "import json, sys; from ansible.module_utils.basic import AnsibleModule; "
        "AnsibleModule.get_bin_path = lambda self, name, *a, **k: None; "
        "from ansible_collections.fediversity.hosting.plugins.modules import nix_build; nix_build.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": module.defaults}),
        env={"PYTHONPATH": str(ROOT / "collections"), **module.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    outcome = json.loads(done.stdout)
    assert outcome["failed"] is True
    assert "nix-store was not found on PATH. Install Nix" in outcome["msg"]


def test_fleets_of_many_machines_take_one_evaluation(recorder: Recorder, source: Callable[..., Fleet]) -> None:
    content = fleet(*(machine(f"vm-{n}", instance("o", f"d{n}", "pixelfed")) for n in range(30)))
    evaluation = evaluate(Nix(recorder), source(content), sorted(content["machines"]), write=False)
    assert len(evaluation.systems) == 30
    assert len(recorder.commands) == 1
