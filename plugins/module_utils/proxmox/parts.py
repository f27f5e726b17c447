# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a side of a virtual machine is: something with requests of its own, apart from the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.check import Check
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client

D = TypeVar("D")
A = TypeVar("A")
Shown: TypeAlias = "dict[str, Any] | list[Any] | str"


@dataclass(frozen=True)
class Place:
    """Which virtual machine, and where it is now."""

    machine: str
    vmid: int
    node: str
    running: bool

    @property
    def path(self) -> str:
        """The path of its requests."""
        return f"/nodes/{self.node}/qemu/{self.vmid}"


class Part(Protocol[D, A]):
    """A side of a virtual machine, read, compared and changed apart from the configuration.

    ``key`` is the option of the item and the key in the diff, ``argument`` the argument_spec of that option.
    """

    key: ClassVar[str]
    argument: ClassVar[dict[str, Any]]

    def desired(self, check: Check, value: Any) -> D:
        """The option, typed. :raises InvalidInput: a value is refused."""

    def read(self, client: Client, place: Place, desired: D) -> A:
        """What there is; called only where the option is given."""

    def compare(self, desired: D, actual: A | None) -> tuple[Shown, Shown]:
        """Plain values before and after, equal if there is nothing to do; *actual* is None for a new VM."""

    def apply(self, client: Client, place: Place, desired: D, actual: A, budget: float) -> None:
        """Make the change, safe to repeat. :param budget: seconds that one task may take."""
