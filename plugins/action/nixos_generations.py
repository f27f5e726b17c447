# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin: generations of a NixOS machine. Documentation: modules/nixos_generations.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import generations, guard, switch, task
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.generations import Listing, Retention
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Report
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import Request, check_request
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.transaction import Tools, look

TARGETS = ("generation", "system")
COLLECTION = ("keep", "keep_days", "collect_garbage")
ARGUMENTS = {
    "generation": {"type": "str"},
    "system": {"type": "str"},
    "keep": {"type": "int"},
    "keep_days": {"type": "int"},
    "collect_garbage": {"type": "bool", "default": False},
    # a return copies nothing, and it may be the way out of a full disk
    **{name: option for name, option in task.GUARD_ARGUMENTS.items() if name != "minimum_free"},
}
NO_SPACE_NEEDED = {"nix": 0, "boot": 0, "state": 0}


class ActionModule(ActionBase):
    """Runs in the controller process, over the connection of the task's host."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        name = str((task_vars or {}).get("inventory_hostname", ""))
        try:
            _validation, arguments = self.validate_argument_spec(ARGUMENTS)
            result.update(self._perform(name, arguments))
        except HostingError as error:
            result.update(task.failed(name, error))
        return result

    def _perform(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        wishes = _wishes(arguments)
        request = task.request({**arguments, "minimum_free": NO_SPACE_NEEDED}, arguments["system"] or "")
        tools = task.tools(self, name, arguments, request.health.controller, task.nothing_to_copy)
        listing = generations.look(tools)
        guard.check_nixos(listing.report)
        if not wishes:
            return {"failed": False, "changed": False, "generations": generations.describe(listing)}
        if wishes[0] in TARGETS:
            return self._return(tools, _aim(listing, request, arguments["generation"]))
        return self._collect(tools, listing, arguments, request.owner)

    def _return(self, tools: Tools, request: Request) -> dict[str, Any]:
        if self._task.check_mode:
            values = self._preview(tools, request)
        else:
            values = switch.result(switch.deploy(tools, request, lambda report: _check_machine(report, request)))
        values["generations"] = generations.describe(generations.look(tools))
        if self._task.diff and values["phase"] != "unchanged":
            difference = generations.difference(tools, values["old"], values["new"])
            values["diff"] = {"prepared": f"--- {values['old']}\n+++ {values['new']}\n{difference}"}
        return values

    def _preview(self, tools: Tools, request: Request) -> dict[str, Any]:
        report = look(tools, request.system)
        values = switch.preview(report, request, check_mode=True)
        if values["phase"] == "planned":
            _check_machine(report, request)
            dry = switch.dry_activate(tools, request.system)
            values.update(rc=dry.rc, log=list(dry.log))
        return values

    def _collect(self, tools: Tools, listing: Listing, arguments: dict[str, Any], owner: str) -> dict[str, Any]:
        garbage = arguments["collect_garbage"]
        retention = Retention(arguments["keep"], arguments["keep_days"])
        chosen = generations.doomed(listing.entries, generations.in_use(listing.report), listing.clock, retention)
        after = listing
        values: dict[str, Any] = {"failed": False, "changed": bool(chosen), "deleted": list(chosen)}
        if self._task.check_mode:
            if garbage:
                dead = generations.dead(tools)
                values.update(changed=bool(chosen) or dead > 0, freed_paths=dead, freed_bytes=None)
        elif chosen or garbage or listing.menu_stale:
            done = generations.collect(tools, listing, chosen, owner, garbage=garbage)
            values = generations.result(done, garbage=garbage)
            after = generations.look_again(tools)
        if self._task.diff:
            gone = [entry for entry in listing.entries if entry.number in values["deleted"]]
            values["diff"] = {"prepared": "".join(f"- {entry.number} {entry.path}\n" for entry in gone)}
        return {**values, "generations": generations.describe(after)}


def _wishes(arguments: dict[str, Any]) -> list[str]:
    """Options that ask for something to be done, checked.

    :raises InvalidInput: they exclude each other, or cannot be.
    """
    wishes = [name for name in (*TARGETS, *COLLECTION) if arguments[name] not in {None, False}]
    if len(wishes) > 1 and any(name in TARGETS for name in wishes):
        raise InvalidInput(
            f"{wishes[0]} and {wishes[1]} are mutually exclusive", hint="Return first, collect in a task of its own"
        )
    if arguments["generation"] is not None:
        generations.check_generation(arguments["generation"])
    generations.check_retention(Retention(arguments["keep"], arguments["keep_days"]))
    return wishes


def _aim(listing: Listing, request: Request, generation: str | None) -> Request:
    """The request with the system, and the generation that has it."""
    target = (
        generations.by_generation(listing, generation) if generation else generations.by_system(listing, request.system)
    )
    aimed = replace(request, system=target.system, generation=target.number)
    check_request(aimed)
    return aimed


def _check_machine(report: Report, request: Request) -> None:
    if not report.valid:
        raise InvalidInput(
            f"{request.system} is not on the machine", where="system", hint="Deploy it with nixos_rebuild"
        )
    # whatever runs there may be left for a system that the machine has had
    task.check_machine(report, request, replace_unknown=True)
