# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error of the lab."""

from __future__ import annotations


class LabError(Exception):
    """Something the user can act on: what is wrong, where, and what to do."""

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        super().__init__(what, where, hint)
        self.what, self.where, self.hint = what, where, hint

    def __str__(self) -> str:
        lines = [
            self.what,
            f"  where: {self.where}" if self.where else "",
            f"  to do: {self.hint}" if self.hint else "",
        ]
        return "\n".join(line for line in lines if line)


class NoLabPossible(LabError):
    """This machine or user cannot run a lab at all (exit code 77)."""
