# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands: environment, control protocol, running commands, refusals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lab import control, doctor, environment, identity, run
from lab.errors import LabError, NoLabPossible
from lab.paths import CHECKOUT, State
from lab.world import World

WORLD = World("1234", 1, 1)


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / "state")
    made.root.mkdir()
    identity.create(made)
    return made


def lab(state: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LAB_STATE": str(state)}
    command = [str(CHECKOUT / "lab"), *arguments]
    return subprocess.run(command, env=variables, text=True, capture_output=True, check=False, **options)  # type: ignore[call-overload]


def test_exec_gets_the_lab_and_nothing_that_bypasses_it(state: State) -> None:
    inherited = {
        "PATH": "/bin",
        "NIX_REMOTE": "daemon",
        "SSH_AUTH_SOCK": "/tmp/agent",
        "HOME": "/root",
        "LANG": "de_DE.UTF-8",
    }
    result = environment.environment(state, WORLD, inherited)
    assert result["PATH"] == f"{CHECKOUT}/.venv/bin:/bin"
    assert "NIX_REMOTE" not in result
    assert "SSH_AUTH_SOCK" not in result
    assert result["HOME"] == "/root"
    assert "LC_ALL" not in result
    assert result["FEDIVERSITY_DATABASE_URL"] == f"sqlite:///{state.root}/operator.db"
    assert f"UserKnownHostsFile={state.root}/known_hosts" in result["ANSIBLE_SSH_COMMON_ARGS"]


def test_the_wrappers_own_python_path_does_not_reach_the_command(state: State) -> None:
    inherited = {"PYTHONPATH": f"{CHECKOUT}/tests:/other"}
    assert environment.environment(state, WORLD, inherited)["PYTHONPATH"] == "/other"
    assert "PYTHONPATH" not in environment.environment(state, WORLD, {"PYTHONPATH": f"{CHECKOUT}/tests"})


def test_without_a_locale_the_command_gets_utf8(state: State) -> None:
    assert environment.environment(state, WORLD, {})["LC_ALL"] == "C.UTF-8"


def test_every_lab_has_its_own_secrets_and_only_its_owner_reads_them(state: State, tmp_path: Path) -> None:
    other = State(tmp_path / "other")
    other.root.mkdir()
    identity.create(other)
    first, second = identity.load(state), identity.load(other)
    assert not set(vars(first).values()) & set(vars(second).values())
    for path in (state.secrets, state.ssh_key, identity.secret_key_file(state), state.proxmox / "accounts.json"):
        assert path.stat().st_mode & 0o077 == 0


class Target:
    def verb_add(self, left: int, right: int) -> int:
        return left + right

    def verb_refuse(self) -> None:
        raise LabError("no", "here", "do this")

    def verb_break(self) -> None:
        raise ZeroDivisionError("oops")


def test_control_calls_the_verb() -> None:
    assert control.answer(Target(), b'{"verb": "add", "left": 1, "right": 2}') == {"ok": 3}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"verb": "refuse"}', "no"),
        (b'{"verb": "break"}', "ZeroDivisionError: oops"),
        (b'{"verb": "__class__"}', "the lab has no verb __class__"),
        (b'{"verb": "add", "left": 1}', "TypeError"),
        (b"nonsense", "JSONDecodeError"),
    ],
)
def test_control_answers_errors_instead_of_failing(line: bytes, what: str) -> None:
    assert control.answer(Target(), line)["error"]["what"].startswith(what)


def test_control_of_a_lab_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="not running"):
        control.request(State(tmp_path), "status")


def in_child(code: str) -> subprocess.Popen[str]:
    action = f"lambda: run.execute({code}, {{'PATH': '/usr/bin:/bin'}})"
    program = f"import sys; from lab import run; sys.exit(run.in_child({action}))"
    variables = {**os.environ, "PYTHONPATH": str(CHECKOUT / "tests")}
    # a test run in the background has these ignored, and what is ignored at the start cannot be trapped
    plain = ["env", "--default-signal=INT,HUP", sys.executable, "-c", program]
    return subprocess.Popen(plain, env=variables, text=True, stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    ("command", "code"),
    [("['sh', '-c', 'exit 7']", 7), ("['sh', '-c', 'kill -9 $$']", 137), ("['no-such-program']", 127)],
)
def test_the_commands_exit_code_is_passed_on(command: str, code: int) -> None:
    with in_child(command) as process:
        assert process.wait(30) == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_command(number: signal.Signals) -> None:
    script = "trap 'echo got; exit 9' INT TERM HUP; echo ready; while :; do sleep 0.05; done"
    with in_child(repr(["sh", "-c", script])) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "got\n"
        assert process.wait(30) == 9


def test_killing_the_wrapper_kills_the_command() -> None:
    with in_child("['sh', '-c', 'echo ready; exec sleep 60']") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        assert process.stdout.read() == ""  # end of file: nobody holds the pipe


def test_down_and_status_without_a_lab(tmp_path: Path) -> None:
    assert lab(tmp_path / "none", "down").returncode == 0
    status = lab(tmp_path / "none", "status")
    assert status.returncode == 1
    assert "to do: ./lab up" in status.stderr


def test_a_directory_with_other_things_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    for command in ("up", "down"):
        result = lab(tmp_path, command)
        assert result.returncode == 1
        assert "not a lab's" in result.stderr
        assert (tmp_path / "thesis.txt").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up a right that only root has")
@pytest.mark.parametrize("command", ["up", "doctor"])
def test_without_permission_one_clear_message_and_77(command: str, tmp_path: Path) -> None:
    without = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", "--"]
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LAB_STATE": str(tmp_path / "state")}
    result = subprocess.run(
        [*without, str(CHECKOUT / "lab"), command], env=variables, text=True, capture_output=True, check=False
    )
    assert result.returncode == 77
    output = result.stdout + result.stderr
    assert "cannot start the lab: no permission to make namespaces" in output
    assert "to do: run it as root" in output
    assert "Traceback" not in output
    assert not (tmp_path / "state").exists()


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_permission", lambda: doctor.Check("permission", True, ""))
    monkeypatch.setattr(doctor, "_control_groups", lambda: doctor.Check("cgroup v2", True, ""))
    monkeypatch.setattr(doctor, "_overlay", lambda: doctor.Check("overlayfs", True, ""))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None if name == "mmdebstrap" else f"/usr/bin/{name}")
    with pytest.raises(NoLabPossible, match="programs: not found: mmdebstrap") as caught:
        doctor.require_possible(State(tmp_path))
    assert caught.value.hint == "apt-get install mmdebstrap"


def test_nix_that_lives_in_nix_is_no_use_in_the_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor.shutil, "which", lambda name: f"/nix/store/x/bin/{name}" if name == "nix-build" else "/bin/sh"
    )
    check = doctor._programs()
    assert not check.ok
    assert check.to_do == "apt-get install nix-bin"


def test_run_is_importable_without_libraries() -> None:
    """./lab must work with the system's Python: no third-party import at its top."""
    program = "import sys; sys.path.insert(0, sys.argv[1]); import lab.cli"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", program, str(CHECKOUT / "tests")], check=False)
    assert result.returncode == 0
    assert run.__name__ == "lab.run"
