# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The course of a switch against a scripted machine: which verbs, over which connections, and how it ends."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    InvalidInput,
    Locked,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import switch
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.decision import carry_out, settle
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import Clock, Waiting, first_contact
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Report
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import (
    ControllerChecks,
    HealthChecks,
    Request,
    TcpCheck,
    longest,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.transaction import Tools

OLD = "/nix/store/00000000000000000000000000000000-old"
NEW = "/nix/store/11111111111111111111111111111111-new"
REQUEST = Request(txn="t1", owner="me", system=NEW)

Answer = str | Exception


@dataclass
class Script:
    """Answers in order: ("verb", "shared" or "new", answer); anything else that is asked for fails the test."""

    steps: list[tuple[str, str, Answer]]
    time: float = 0.0
    said: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    copies: int = 0
    problem: str = ""
    ends: list[str] = field(default_factory=list)

    def run(self, script: bytes) -> str:
        return self._answer("shared", script)

    def run_over_new_connection(self, script: bytes) -> str:
        return self._answer("new", script)

    def forget_connection(self) -> None:
        """Nothing is kept here."""

    def _answer(self, connection: str, script: bytes) -> str:
        match = re.match(r"set -- (\S+)", script.decode())
        assert match is not None
        assert self.steps, f"{match[1]} was not expected"
        verb, wanted, answer = self.steps.pop(0)
        if verb == "confirm":
            words = shlex.split(script.decode().splitlines()[0])
            self.known.append(words[5])
            self.ends.append(words[6])
        assert (match[1], connection) == (verb, wanted)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.01)

    @property
    def tools(self) -> Tools:
        def copy() -> None:
            self.copies += 1

        return Tools(self, copy, self.said.append, 120, Clock(lambda: self.time, self.sleep), lambda: self.problem)


def status(current: str = OLD, profile: str = OLD, extra: Sequence[str] = ()) -> str:
    return "\n".join(["@nixos=yes", "@arch=x86_64", f"@current={current}", f"@profile={profile}", *extra])


def record(phase: str, txn: str = "t1", system: str = NEW, *extra: str) -> str:
    fields = {
        "txn": txn,
        "owner": "somebody",
        "action": "switch",
        "phase": phase,
        "system_old": OLD,
        "system_new": system,
    }
    return "\n".join([*(f"@record_{key}={value}" for key, value in fields.items()), "@same_boot=yes", *extra])


def deploy(
    script: Script, check: Callable[[Report], None] = lambda report: None, request: Request = REQUEST
) -> switch.Outcome:
    outcome = switch.deploy(script.tools, request, check)
    assert not script.steps
    return outcome


def test_unchanged_costs_one_connection() -> None:
    script = Script([("status", "shared", status(NEW, NEW))])
    outcome = deploy(script)
    assert (outcome.changed, outcome.phase, outcome.error, script.copies) == (False, "unchanged", None, 0)


def test_clean_deployment_confirms_over_new_connections() -> None:
    script = Script(
        [
            ("status", "shared", status()),
            ("begin", "shared", "@result=started\n" + record("armed")),
            ("confirm", "new", record("activated")),
            ("confirm", "new", record("committed", "t1", NEW, "@generation=8", "@log=done")),
        ]
    )
    outcome = deploy(script)
    assert script.known == ["-", "activated"]
    values = switch.result(outcome)
    assert (values["failed"], values["changed"], values["generation"], values["log"]) == (False, True, 8, ["done"])
    assert script.copies == 1


def test_a_system_that_is_there_is_not_copied_again() -> None:
    script = Script(
        [
            ("status", "shared", status(extra=["@valid=yes"])),
            ("begin", "shared", "@result=started\n" + record("armed")),
            ("confirm", "new", record("committed")),
        ]
    )
    deploy(script)
    assert script.copies == 0


def test_a_system_that_was_collected_after_the_copy_is_copied_again_once() -> None:
    gone = ("begin", "shared", "@result=missing\n@error=it is not in the machine's Nix store")
    begun = ("begin", "shared", "@result=started\n" + record("armed"))
    script = Script([("status", "shared", status()), gone, begun, ("confirm", "new", record("committed"))])
    assert deploy(script).phase == "committed"
    assert script.copies == 2
    script = Script([("status", "shared", status()), gone, gone])
    with pytest.raises(BackendError, match="not in the machine's Nix store"):
        deploy(script)


def test_silence_is_waited_out_until_the_machine_says_how_it_ended() -> None:
    silence = [("confirm", "new", Unreachable("timed out")) for _look in range(40)]
    script = Script(
        [
            ("status", "shared", status()),
            ("begin", "shared", "@result=started\n" + record("armed")),
            *silence,
            ("confirm", "new", BackendError("sh: not found")),
            ("confirm", "new", record("rolled-back", "t1", NEW, "@record_reason=no contact", "@record_method=reboot")),
        ]
    )
    values = switch.result(deploy(script))
    assert (values["failed"], values["changed"], values["rollback"]["method"]) == (True, False, "reboot")
    assert values["msg"].startswith("rolled back: no contact")
    assert any("no contact yet" in text for text in script.said)


def test_silence_past_every_deadline_is_told_as_what_it_is() -> None:
    script = Script(
        [
            ("status", "shared", status()),
            ("begin", "shared", "@result=started\n" + record("armed")),
            *[("confirm", "new", Unreachable("timed out")) for _look in range(2000)],
        ]
    )
    with pytest.raises(Unreachable, match="returns to the old system by itself"):
        deploy(script)
    assert script.time > longest(REQUEST, 120)


def test_a_run_after_a_killed_one_resumes_it() -> None:
    script = Script(
        [
            ("status", "shared", status()),
            ("begin", "shared", "@result=locked\n" + record("activated", "t0")),
            ("confirm", "new", record("committed", "t0")),
        ]
    )
    assert deploy(script).txn == "t0"


def test_a_resumed_run_that_was_too_late_starts_over() -> None:
    script = Script(
        [
            ("status", "shared", status()),
            ("begin", "shared", "@result=locked\n" + record("activated", "t0")),
            ("confirm", "new", record("rolled-back", "t0")),
            ("begin", "shared", "@result=started\n" + record("armed")),
            ("confirm", "new", record("committed")),
        ]
    )
    outcome = deploy(script)
    assert (outcome.txn, outcome.error) == ("t1", None)
    assert "tried again" in outcome.warnings[0]


def test_a_rollback_under_way_is_helped_to_its_end_first() -> None:
    script = Script(
        [
            ("status", "shared", status()),
            ("begin", "shared", "@result=locked\n" + record("rolling-back", "t0")),
            ("confirm", "new", record("rolled-back", "t0")),
            ("begin", "shared", "@result=started\n" + record("armed")),
            ("confirm", "new", record("committed")),
        ]
    )
    assert deploy(script).phase == "committed"


def test_somebody_elses_lock_is_an_error() -> None:
    script = Script(
        [("status", "shared", status()), ("begin", "shared", "@result=locked\n" + record("activated", "t0", OLD))]
    )
    with pytest.raises(Locked, match="somebody"):
        deploy(script)


def test_a_lost_answer_to_begin_finds_the_own_transaction() -> None:
    script = Script(
        [
            ("status", "shared", status()),
            ("begin", "shared", Unreachable("broken pipe")),
            ("begin", "shared", "@result=known\n" + record("activating")),
            ("confirm", "new", record("committed")),
        ]
    )
    assert deploy(script).txn == "t1"


def test_a_lost_answer_whose_switch_was_rolled_back_is_not_begun_twice() -> None:
    undone = record("rolled-back", "t1", NEW, "@record_reason=no confirmation")
    script = Script(
        [
            ("status", "shared", status()),
            *[("begin", "shared", Unreachable("timed out")) for _look in range(30)],
            ("begin", "shared", "@result=known\n" + undone),
            ("confirm", "new", undone),
        ]
    )
    assert switch.result(deploy(script))["msg"].startswith("rolled back")


def test_a_restart_in_an_earlier_run_is_settled_and_told() -> None:
    left = record("committing", "t0").replace("@same_boot=yes", "@same_boot=no")
    script = Script(
        [
            ("status", "shared", status(NEW, NEW, [left])),
            ("settle", "shared", status(NEW, NEW, [record("committed", "t0")])),
        ]
    )
    outcome = deploy(script)
    assert (outcome.changed, outcome.error) == (False, None)
    assert "t0 of somebody" in outcome.warnings[0]


HOLD = replace(REQUEST, commit=False)
CHECKED = replace(REQUEST, health=HealthChecks(controller=ControllerChecks(tcp=(TcpCheck(22),))))
TO_CHECKED: list[tuple[str, str, Answer]] = [
    ("status", "shared", status(extra=["@valid=yes"])),
    ("begin", "shared", "@result=started\n" + record("armed")),
    ("confirm", "new", record("activated")),
    ("confirm", "new", record("checked")),
]


def test_a_held_deployment_ends_checked_and_armed() -> None:
    script = Script(list(TO_CHECKED))
    values = switch.result(deploy(script, request=HOLD))
    assert (values["failed"], values["changed"], values["phase"], values["txn"]) == (False, True, "checked", "t1")
    assert script.ends == ["hold", "hold"]


def test_the_controllers_checks_come_before_the_commit() -> None:
    script = Script([*TO_CHECKED, ("commit", "new", record("committed")), ("confirm", "new", record("committed"))])
    assert deploy(script, request=CHECKED).phase == "committed"


def test_a_failed_check_of_the_controller_aborts() -> None:
    undone = record("rolled-back", "t1", NEW, "@record_reason=no answer")
    script = Script(
        [*TO_CHECKED, ("abort", "new", record("rolling-back")), ("confirm", "new", undone)], problem="no answer"
    )
    assert switch.result(deploy(script, request=CHECKED))["msg"].startswith("rolled back: no answer")


def test_a_decision_whose_answer_is_lost_is_asked_for_again() -> None:
    script = Script(
        [
            *TO_CHECKED,
            ("commit", "new", Unreachable("timed out")),
            ("confirm", "new", record("checked")),
            ("commit", "new", record("committed")),
            ("confirm", "new", record("committed")),
        ]
    )
    assert deploy(script, request=CHECKED).phase == "committed"


@pytest.mark.parametrize(
    ("decision", "phase", "failed"),
    [("commit", "committed", False), ("commit", "rolled-back", True), ("abort", "rolled-back", False)],
)
def test_a_decision_about_a_held_transaction(decision: Literal["commit", "abort"], phase: str, failed: bool) -> None:
    end = record(phase, "t1", NEW, "@record_reason=late")
    script = Script(
        [("status", "shared", status(extra=[record("checked")])), (decision, "new", end), ("confirm", "new", end)]
    )
    values = carry_out(script.tools, decision, "t1", "by hand", 100.0)
    assert (values["failed"], values["phase"], values["changed"]) == (failed, phase, not failed)
    script = Script([("status", "shared", status(extra=[end]))])
    values = carry_out(script.tools, decision, "t1", "by hand", 100.0)
    assert (values["failed"], values["phase"], values["changed"]) == (failed, phase, False)


def test_a_decision_about_nothing_is_refused() -> None:
    for left in (record("checked", "t0"), record("activating")):
        script = Script([("status", "shared", status(extra=[left]))])
        with pytest.raises(InvalidInput):
            carry_out(script.tools, "commit", "t1", "", 100.0)


def test_an_interrupted_transaction_is_closed_without_a_new_one() -> None:
    left = record("activated").replace("@same_boot=yes", "@same_boot=no")
    script = Script(
        [
            ("status", "shared", Unreachable("booting")),
            ("status", "shared", status(extra=[left])),
            ("settle", "new", status(extra=[record("rolled-back")])),
        ]
    )
    assert settle(script.tools, 100.0)["phase"] == "rolled-back"
    script = Script([("status", "shared", status(extra=[record("rolled-back")]))])
    assert settle(script.tools, 100.0)["changed"] is False


def test_failures_that_were_there_before_are_a_warning() -> None:
    script = Script(
        [
            ("status", "shared", status()),
            ("begin", "shared", "@result=started\n" + record("armed")),
            ("confirm", "new", record("committed", "t1", NEW, "@record_rc=4", "@record_failed_after=was.service")),
        ]
    )
    values = switch.result(deploy(script))
    assert (values["failed"], values["rc"]) == (False, 4)
    assert "was.service" in values["warnings"][0]


def test_a_refused_machine_gets_nothing() -> None:
    def refuse(report: Report) -> None:
        raise HostingError("wrong architecture")

    script = Script([("status", "shared", status())])
    with pytest.raises(HostingError, match="wrong architecture"):
        deploy(script, refuse)
    assert script.copies == 0


def test_first_contact_waits_for_a_booting_machine() -> None:
    script = Script(
        [("status", "shared", Unreachable("refused")) for _look in range(9)] + [("status", "shared", "@a=b")]
    )
    tools = script.tools
    said = first_contact(script, b"set -- status", Waiting(120, script.said.append, tools.clock))
    assert said == "@a=b"
    assert script.said[0] == "waiting for SSH, 0 of 120 s: refused"
    assert len(script.said) in {2, 3, 4}


@pytest.mark.parametrize(("timeout", "error", "tries"), [(0, "refused", 1), (2, "refused", 4)])
def test_first_contact_gives_up_with_one_message(timeout: int, error: str, tries: int) -> None:
    script = Script([("status", "shared", Unreachable(error)) for _look in range(tries)])
    with pytest.raises(Unreachable, match=rf"did not answer within {timeout} s: {error}"):
        first_contact(script, b"set -- status", Waiting(timeout, script.said.append, script.tools.clock))
    assert not script.steps


def test_a_changed_host_key_is_not_waited_for() -> None:
    script = Script([("status", "shared", Unreachable("Host key verification failed"))])
    with pytest.raises(Unreachable, match="its SSH host key is not the known one"):
        first_contact(script, b"set -- status", Waiting(120, script.said.append, script.tools.clock))
    assert not script.steps


def test_words_arrive_quoted() -> None:
    hostile = "a'b $(id) `id` \" \\"
    script = switch.guard_script(["confirm", hostile]).decode()
    assert shlex.split(script.splitlines()[0])[2:] == ["confirm", hostile]
