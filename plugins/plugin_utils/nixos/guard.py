# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guarded switch: what the controller decides from a machine's report. Pure functions, no effects.

Protocol and journal: docs/guarded-switch.md. The machine's side is the shell program in the folder payload.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    InvalidInput,
    Locked,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Record, Report
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import Request

UNDOING = frozenset({"rolling-back", "reboot-rollback"})

# machine as `uname -m` names it → Nix systems it runs
SYSTEMS = {
    "x86_64": frozenset({"x86_64-linux", "i686-linux"}),
    "aarch64": frozenset({"aarch64-linux"}),
    "i686": frozenset({"i686-linux"}),
    "armv7l": frozenset({"armv7l-linux"}),
    "riscv64": frozenset({"riscv64-linux"}),
}


class Preflight(Enum):
    """What the first look at the machine asks for."""

    UNCHANGED = "unchanged"
    SETTLE = "settle"
    DEPLOY = "deploy"


def check_nixos(report: Report) -> None:
    """Refuse what the guard cannot work on.

    :raises InvalidInput: the machine is not a NixOS system, or the payload does not run as root.
    """
    if not report.nixos:
        raise InvalidInput(
            "the machine does not run NixOS: it has neither /etc/NIXOS nor a system profile",
            hint="Install NixOS first; the guarded switch needs a running system that it can return to",
        )
    if report.uid not in {0, None}:
        raise InvalidInput(
            f"the machine's administrator rights are needed, but the task runs there as user {report.uid}",
            hint="Connect as root, or set become: true",
        )


def preflight(report: Report, request: Request) -> Preflight:
    """Decide from the machine's state alone.

    :raises InvalidInput: the machine is not a NixOS system, or cannot be changed by this user.
    """
    check_nixos(report)
    live = report.record is not None and report.record.live
    if not _is_wanted(report, request):
        return Preflight.DEPLOY
    if not live:
        return Preflight.UNCHANGED
    return Preflight.DEPLOY if report.record is not None and report.record.same_boot else Preflight.SETTLE


def _is_wanted(report: Report, request: Request) -> bool:
    held = {
        "switch": {report.current, report.profile},
        "boot": {report.profile},
        "test": {report.current},
    }[request.action]
    if request.action != "test" and report.default:
        held.add(report.default)
    if request.reboot != "never" and request.action == "boot":
        held.add(report.current)
    if request.reboot == "always" or (request.reboot == "if_needed" and report.wanted_needs_reboot):
        held.add(report.booted)
    return held == {request.system}


def check_architecture(report: Report, nix_system: str, request: Request) -> None:
    """:raises InvalidInput: the system was built for another architecture than the machine's; unknown ones pass."""
    runs = SYSTEMS.get(report.arch)
    if runs is not None and nix_system and nix_system not in runs:
        raise InvalidInput(
            f"{request.system} is built for {nix_system}, the machine is {report.arch}",
            where="system",
            hint="Build the system for the machine's architecture",
        )


def check_known(report: Report, *, in_store: bool) -> None:
    """Refuse to replace what somebody else has deployed.

    :param in_store: the controller's store holds the running system.
    :raises InvalidInput: the running system is neither of the guard's last transaction nor known to the controller.
    """
    record = report.record
    known = record is not None and (record.live or report.current in {record.system_old, record.system_new})
    if not known and not in_store:
        raise InvalidInput(
            f"the machine runs {report.current}, which was not deployed from here",
            where="replace_unknown",
            hint="If it is the right machine and its system may be replaced, set replace_unknown: true",
        )


def check_space(report: Report, request: Request) -> None:
    """:raises InvalidInput: less is free than the request asks for; nothing has been copied yet."""
    for path, free, least in (
        ("/nix/store", report.free_nix, request.minimum_free.nix),
        ("/boot", report.free_boot, request.minimum_free.boot),
        ("/var/lib", report.free_state, request.minimum_free.state),
    ):
        if free is not None and free < least:
            raise InvalidInput(
                f"only {free} MiB are free on {path}, {least} MiB are asked for",
                where="minimum_free",
                hint="Remove old generations (fediversity.hosting.nixos_generations) or enlarge the disk",
            )


class Begun(Enum):
    """What the answer to `begin` asks for."""

    OBSERVE = "observe"
    RESUME = "resume"
    AGAIN = "again"
    COPY = "copy"


def after_begin(report: Report, request: Request) -> Begun:
    """Decide between following our transaction, an interrupted run's, trying again, or copying the system again.

    A garbage collection of the machine can come between the copy and the roots that `begin` makes.

    :raises BackendError: the machine refused; nothing was armed.
    :raises Locked: somebody else deploys another system.
    """
    if report.result in {"started", "known"}:
        return Begun.OBSERVE
    if report.result == "missing":
        return Begun.COPY
    if report.result == "refused":
        raise BackendError(report.error, hint="Nothing was changed")
    record = report.record
    if record is None or not record.live:
        return Begun.AGAIN
    if record.system_new != request.system or record.action != request.action:
        until = f"for {record.remaining} s at most" if record.remaining is not None else "until it has ended"
        raise Locked(
            f"the machine is locked by {record.owner} ({record.txn}, {record.phase}, {record.system_new}) {until}",
            hint="Run again afterwards",
        )
    return Begun.AGAIN if record.phase in UNDOING else Begun.RESUME


class Step(Enum):
    """What to do after a look at the running transaction."""

    LOOK_AGAIN = "look again"
    DECIDE = "decide"
    DONE = "done"
    UNDONE = "undone"
    NEEDS_REBOOT = "needs reboot"


def next_step(report: Report, txn: str) -> Step:
    """Decide from the record; the machine alone knows in which phase it is.

    :raises BackendError: the record is not of this transaction any more.
    """
    record = report.record
    if record is None or record.txn != txn:
        raise BackendError(
            f"the machine's record is not of this transaction ({txn}) any more",
            hint="Another deployment has followed; look into /var/lib/fediversity-guard/journal",
        )
    if record.phase in {"committed", "tested"}:
        return Step.DONE
    if record.phase == "needs-reboot":
        return Step.NEEDS_REBOOT
    if record.phase == "checked":
        return Step.DECIDE
    return Step.UNDONE if record.phase in {"rolled-back", "failed"} else Step.LOOK_AGAIN


def failure(step: Step, record: Record) -> HostingError:
    """What to tell about a transaction that did not reach its goal."""
    if step is Step.NEEDS_REBOOT:
        return HostingError(
            "needs a reboot: the new system has another init interface, nothing was activated",
            hint="Allow a guarded restart with reboot: if_needed",
        )
    if record.phase == "failed":
        hint = (
            "Look at the machine's boot loader and at the log in the result"
            if record.rollback
            else "rollback is off: the machine was left as it is"
        )
        return HostingError(f"failed: {record.reason}", hint=hint)
    return HostingError(
        f"rolled back: {record.reason}",
        hint=f"The machine runs {record.system_old} again; the log of the activation is in the result",
    )


def comparison(old: Sequence[str], new: Sequence[str]) -> str:
    """Closure difference by store paths: one line per path that goes (-) or comes (+)."""
    before, after = set(old), set(new)
    lines = [f"- {path}" for path in sorted(before - after)] + [f"+ {path}" for path in sorted(after - before)]
    return "".join(f"{line}\n" for line in lines)
