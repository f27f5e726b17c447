# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decisions of the guarded switch: which report leads to what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, InvalidInput, Locked
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.guard import (
    Begun,
    Preflight,
    Step,
    after_begin,
    check_architecture,
    check_known,
    check_space,
    comparison,
    failure,
    next_step,
    preflight,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Record, Report, parse_report
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import (
    ControllerChecks,
    FreeSpace,
    HealthChecks,
    HttpCheck,
    Request,
    TcpCheck,
    begin_words,
    check_request,
    confirm_words,
    longest,
    seen,
)

OLD = "/nix/store/00000000000000000000000000000000-old"
NEW = "/nix/store/11111111111111111111111111111111-new"
REQUEST = Request(txn="t1", owner="me", system=NEW)
RECORD = Record(
    txn="t1",
    owner="somebody",
    action="switch",
    rollback=True,
    phase="activated",
    stage="activated",
    once=False,
    system_old=OLD,
    system_new=NEW,
    generation_new="",
    reason="",
    method="",
    rc=0,
    same_boot=True,
    restored=False,
    remaining=12,
    failed_before=(),
    failed_after=(),
)
MACHINE = Report(nixos=True, arch="x86_64", current=OLD, profile=OLD)


def test_report_ignores_banners_and_keeps_signs() -> None:
    report = parse_report(
        "Welcome! a=b\n@current=/a=b\n@log=@current=/evil\n@log=\u2028@current=/evil\n@record_txn=t1\n@record_rc=4\n"
        "@remaining=-3\nnoise@x=y\n@record_failed_before=a.service b.service \n@same_boot=yes\n"
    )
    assert (report.current, report.log) == ("/a=b", ("@current=/evil", "\u2028@current=/evil"))
    assert report.record is not None
    assert (report.record.rc, report.record.remaining, report.record.same_boot) == (4, -3, True)
    assert report.record.failed_before == ("a.service", "b.service")


def test_report_without_a_line_is_an_error_that_quotes_it() -> None:
    with pytest.raises(BackendError, match="sh: cat: not found"):
        parse_report("sh: cat: not found\n")


@pytest.mark.parametrize(
    ("report", "action", "expected"),
    [
        (MACHINE, "switch", Preflight.DEPLOY),
        (replace(MACHINE, current=NEW), "switch", Preflight.DEPLOY),
        (replace(MACHINE, profile=NEW), "switch", Preflight.DEPLOY),
        (replace(MACHINE, current=NEW, profile=NEW), "switch", Preflight.UNCHANGED),
        (replace(MACHINE, profile=NEW), "boot", Preflight.UNCHANGED),
        (replace(MACHINE, current=NEW, profile=NEW, default=OLD), "switch", Preflight.DEPLOY),
        (replace(MACHINE, profile=NEW, default=OLD), "boot", Preflight.DEPLOY),
        (replace(MACHINE, current=NEW, default=OLD), "test", Preflight.UNCHANGED),
        (replace(MACHINE, current=NEW), "test", Preflight.UNCHANGED),
        (replace(MACHINE, current=NEW, profile=NEW, record=RECORD), "switch", Preflight.DEPLOY),
        (
            replace(MACHINE, current=NEW, profile=NEW, record=replace(RECORD, same_boot=False)),
            "switch",
            Preflight.SETTLE,
        ),
        (
            replace(MACHINE, current=NEW, profile=NEW, record=replace(RECORD, phase="committed")),
            "switch",
            Preflight.UNCHANGED,
        ),
    ],
)
def test_preflight(report: Report, action: str, expected: Preflight) -> None:
    assert preflight(report, replace(REQUEST, action=action)) is expected  # type: ignore[arg-type]


def test_a_machine_without_nixos_is_refused() -> None:
    with pytest.raises(InvalidInput, match="does not run NixOS"):
        preflight(Report(), REQUEST)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (Report(result="started"), Begun.OBSERVE),
        (Report(result="locked", record=RECORD), Begun.RESUME),
        (Report(result="locked", record=replace(RECORD, phase="rolling-back")), Begun.AGAIN),
        (Report(result="locked", record=replace(RECORD, phase="reboot-rollback")), Begun.AGAIN),
        (Report(result="locked", record=replace(RECORD, phase="committed", system_new=OLD)), Begun.AGAIN),
        (Report(result="locked"), Begun.AGAIN),
    ],
)
def test_after_begin(report: Report, expected: Begun) -> None:
    assert after_begin(report, REQUEST) is expected


def test_a_lock_for_another_system_names_its_owner_and_end() -> None:
    other = replace(RECORD, system_new=OLD)
    with pytest.raises(Locked, match=r"somebody \(t1, activated, .*-old\) for 12 s at most"):
        after_begin(Report(result="locked", record=other), REQUEST)
    with pytest.raises(Locked, match="until it has ended"):
        after_begin(Report(result="locked", record=replace(other, remaining=None)), REQUEST)
    with pytest.raises(Locked):
        after_begin(Report(result="locked", record=replace(RECORD, action="test")), REQUEST)


def test_a_refusal_says_that_nothing_was_changed() -> None:
    with pytest.raises(BackendError, match=r"no room\. Nothing was changed"):
        after_begin(Report(result="refused", error="no room"), REQUEST)


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        *[(phase, Step.LOOK_AGAIN) for phase in ("armed", "activating", "activated", "committing")],
        *[(phase, Step.LOOK_AGAIN) for phase in ("rolling-back", "reboot-rollback")],
        *[(phase, Step.DONE) for phase in ("committed", "tested")],
        *[(phase, Step.UNDONE) for phase in ("rolled-back", "failed")],
        ("needs-reboot", Step.NEEDS_REBOOT),
        ("checked", Step.DECIDE),
        ("booting", Step.LOOK_AGAIN),
    ],
)
def test_next_step(phase: str, expected: Step) -> None:
    assert next_step(Report(record=replace(RECORD, phase=phase)), "t1") is expected


@pytest.mark.parametrize("report", [Report(), Report(record=replace(RECORD, txn="t2"))])
def test_a_record_of_somebody_else_is_not_ours(report: Report) -> None:
    with pytest.raises(BackendError, match="not of this transaction"):
        next_step(report, "t1")


@pytest.mark.parametrize(
    "request_",
    [
        replace(REQUEST, system="/etc"),
        replace(REQUEST, system=f"{NEW}/bin"),
        replace(REQUEST, system=f"{NEW}\n"),
        replace(REQUEST, system="/nix/store/e0000000000000000000000000000000-x"),
        replace(REQUEST, activation_timeout=0),
        replace(REQUEST, activation_timeout=7201),
        replace(REQUEST, confirm_timeout=0),
        replace(REQUEST, health=HealthChecks(unit_stable=-1)),
        replace(REQUEST, health=HealthChecks(units=("a b.service",))),
        replace(REQUEST, health=HealthChecks(commands=("true\nfalse",))),
        replace(REQUEST, health=HealthChecks(http=(HttpCheck("file:///etc/shadow"),))),
        replace(REQUEST, health=HealthChecks(http=(HttpCheck("http://a b"),))),
        replace(REQUEST, health=HealthChecks(tcp=(TcpCheck(0),))),
        replace(REQUEST, health=HealthChecks(controller=ControllerChecks(tcp=(TcpCheck(22, "-oProxy"),)))),
        replace(REQUEST, health=HealthChecks(controller=ControllerChecks(http=(HttpCheck("ftp://h/"),)))),
        replace(REQUEST, reboot_timeout=1),
        replace(REQUEST, hold_timeout=0),
        replace(REQUEST, hold_timeout=100000),
        replace(REQUEST, minimum_free=FreeSpace(nix=-1)),
        replace(REQUEST, commit=False, rollback=False),
        replace(REQUEST, reboot="always", rollback=False),
        replace(REQUEST, health=HealthChecks(units=("--help",))),
        replace(REQUEST, commit=False, action="boot"),
    ],
)
def test_bad_requests_are_refused(request_: Request) -> None:
    check_request(REQUEST)
    with pytest.raises(InvalidInput):
        check_request(request_)


def test_architectures() -> None:
    check_architecture(MACHINE, "x86_64-linux", REQUEST)
    check_architecture(MACHINE, "i686-linux", REQUEST)
    check_architecture(MACHINE, "", REQUEST)
    check_architecture(replace(MACHINE, arch="sparc64"), "x86_64-linux", REQUEST)
    with pytest.raises(InvalidInput, match="built for aarch64-linux, the machine is x86_64"):
        check_architecture(MACHINE, "aarch64-linux", REQUEST)


def test_words_keep_one_line_each_and_hostile_owners_harmless() -> None:
    words = begin_words(replace(REQUEST, owner="me\nphase=committed\u2028é"))
    assert "owner=me?phase=committed??" in words
    health = HealthChecks(("a.service",), 3, ("test 'x y'",), (TcpCheck(25),), (HttpCheck("http://h/", 204),))
    assert confirm_words("t1", 20, "activated", health, hold=True)[4:] == [
        "hold",
        "stable=3",
        "patience=30",
        "unit=a.service",
        "command=test 'x y'",
        "tcp=127.0.0.1 25",
        "http=204 http://h/",
    ]


def test_the_controller_outlasts_every_deadline_of_the_machine() -> None:
    request = replace(REQUEST, reboot="if_needed", commit=False)
    words = dict(word.split("=", 1) for word in begin_words(request)[1:])
    limits = sum(int(value) for key, value in words.items() if key.endswith("_limit"))
    assert longest(request, 120) >= limits


def test_failures_say_what_and_what_to_do() -> None:
    undone = replace(RECORD, phase="rolled-back", reason="the activation script failed")
    assert str(failure(Step.UNDONE, undone)).startswith("rolled back: the activation script failed. The machine runs")
    assert "reboot: if_needed" in str(failure(Step.NEEDS_REBOOT, RECORD))
    failed = replace(RECORD, phase="failed", reason="x")
    assert "boot loader" in str(failure(Step.UNDONE, failed))
    assert "rollback is off" in str(failure(Step.UNDONE, replace(failed, rollback=False)))


@pytest.mark.parametrize(
    ("report", "event"),
    [
        (Report(), "-"),
        (Report(record=replace(RECORD, phase="activating")), "-"),
        (Report(record=RECORD), "activated"),
        (Report(record=replace(RECORD, phase="rolling-back")), "-"),
        (Report(record=replace(RECORD, phase="rolling-back", restored=True)), "restored"),
        (Report(record=replace(RECORD, phase="rolled-back", restored=True)), "-"),
    ],
)
def test_what_a_later_connection_may_prove(report: Report, event: str) -> None:
    assert seen(report) == event


def test_comparison_by_paths() -> None:
    assert comparison(["/a", "/b"], ["/b", "/c"]) == "- /a\n+ /c\n"


@pytest.mark.parametrize(
    ("report", "reboot", "expected"),
    [
        (replace(MACHINE, current=NEW, profile=NEW, booted=OLD), "if_needed", Preflight.UNCHANGED),
        (replace(MACHINE, current=NEW, profile=NEW, booted=OLD), "always", Preflight.DEPLOY),
        (replace(MACHINE, current=NEW, profile=NEW, booted=NEW), "always", Preflight.UNCHANGED),
        (
            replace(MACHINE, current=NEW, profile=NEW, booted=OLD, wanted_needs_reboot=True),
            "if_needed",
            Preflight.DEPLOY,
        ),
        (
            replace(MACHINE, current=NEW, profile=NEW, booted=OLD, wanted_needs_reboot=True),
            "never",
            Preflight.UNCHANGED,
        ),
    ],
)
def test_preflight_with_a_restart_allowed(report: Report, reboot: str, expected: Preflight) -> None:
    assert preflight(report, replace(REQUEST, reboot=reboot)) is expected  # type: ignore[arg-type]


def test_boot_with_a_restart_allowed_wants_the_system_to_run() -> None:
    request = replace(REQUEST, action="boot", reboot="if_needed")
    assert preflight(replace(MACHINE, profile=NEW), request) is Preflight.DEPLOY


def test_the_administrators_rights_are_needed() -> None:
    preflight(replace(MACHINE, uid=0), REQUEST)
    with pytest.raises(InvalidInput, match=r"as user 1000\. Connect as root, or set become: true"):
        preflight(replace(MACHINE, uid=1000), REQUEST)


def test_a_foreign_running_system_is_not_replaced() -> None:
    ended = replace(RECORD, phase="committed")
    for record in (RECORD, ended, replace(ended, system_old=NEW, system_new=OLD)):
        check_known(replace(MACHINE, record=record), in_store=False)
    check_known(MACHINE, in_store=True)
    foreign = replace(MACHINE, current="/nix/store/22222222222222222222222222222222-foreign", record=ended)
    for report in (MACHINE, foreign):
        with pytest.raises(InvalidInput, match="replace_unknown: true"):
            check_known(report, in_store=False)


def test_space_is_asked_for_before_the_copy() -> None:
    check_space(MACHINE, REQUEST)
    check_space(replace(MACHINE, free_nix=64, free_boot=4, free_state=4), REQUEST)
    with pytest.raises(InvalidInput, match="only 3 MiB are free on /boot, 4 MiB are asked for"):
        check_space(replace(MACHINE, free_boot=3), REQUEST)
