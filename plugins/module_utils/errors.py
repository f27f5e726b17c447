# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Typed errors; only the outermost frame of a module or plugin turns them into a failure.

Every message says what is wrong, where (operator, deployment, machine, field) and what to do about it.
"""

from __future__ import annotations


class HostingError(Exception):
    """Something the caller can act on.

    :param what: what went wrong, one sentence without a final full stop.
    :param where: the operator, deployment, machine, file or field it belongs to.
    :param hint: what to do about it, one sentence.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. {self.hint}" if self.hint else text


class InvalidInput(HostingError):
    """The desired state is refused; nothing was written."""


class MissingLibrary(HostingError):
    """A Python library that this module needs is not installed for the interpreter that runs it."""

    def __init__(self, library: str, *, hint: str = "") -> None:
        super().__init__(f"the Python library {library} is missing", hint=hint or f"Install it: pip install {library}")


class MissingCommand(HostingError):
    """A program that this module calls is not on PATH."""


class NotFound(HostingError):
    """The backend does not have the object."""


class Exists(HostingError):
    """The backend already has an object of that identity."""


class Denied(HostingError):
    """The backend refuses these credentials or this request."""


class Locked(HostingError):
    """Somebody else is working on the object; a later try may succeed."""


class Unreachable(HostingError):
    """No answer from the backend or machine."""


class BackendError(HostingError):
    """The backend answered with an error that has no better class."""


class NotOwned(HostingError):
    """The object exists but carries no mark of ours; it is never touched."""


class ReadBackDiffers(HostingError):
    """The backend accepted a change but does not show it."""
