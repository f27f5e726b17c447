# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a server keeps its users over a restart: in its ACL file, in its configuration file, or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.client import Facts


@dataclass(frozen=True)
class Persistence:
    """The way that this server has, and how far it was gone.

    :param command: what makes the server write; ``None`` if it has no place to write to.
    :param problem: why the users are not saved, and what to do about it.
    """

    method: Literal["aclfile", "config", "none"]
    command: tuple[str, ...] | None = None
    saved: bool = False
    problem: HostingError | None = field(default=None, compare=False)

    def done(self) -> Persistence:
        """The server has written its users."""
        return replace(self, saved=True)

    def failed(self, error: HostingError) -> Persistence:
        """The server could not write its users."""
        what = f"the users are in force but not saved, and the next start of the server loses them: {error.what}"
        hint = "Look at the server's log and the permissions of its files, then run again"
        return replace(self, problem=type(error)(what, where=error.where, hint=error.hint or hint))

    def result(self) -> dict[str, Any]:
        """For the result of the module."""
        return {"method": self.method, "saved": self.saved}


def persistence(facts: Facts) -> Persistence:
    """ACL SAVE where there is an ACL file (or where the server does not tell), else CONFIG REWRITE, else nothing."""
    if facts.acl_file != "":
        return Persistence("aclfile", ("ACL", "SAVE"))
    if facts.config_file:
        return Persistence("config", ("CONFIG", "REWRITE"))
    return Persistence("none")


def warnings(facts: Facts, changed: bool) -> list[str]:
    """What the person who runs this must know about the server."""
    found = []
    if persistence(facts).method == "none":
        found.append(
            "This server has neither an ACL file nor a configuration file: a restart loses its users. "
            "Start it with the setting aclfile"
        )
    if changed and (facts.role != "master" or facts.replicas or facts.cluster):
        found.append("ACL users are not replicated: run this for every primary, replica and cluster node")
    return found
