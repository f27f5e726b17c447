# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers of the Proxmox VE API and the typed errors that they mean.

The server says what is wrong as text in the HTTP reason phrase, rarely by status code; the texts are those of
Proxmox VE 9.2 (qemu-server, pve-storage, pve-access-control, pve-http-server).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    Exists,
    HostingError,
    InvalidInput,
    Locked,
    NotFound,
)

# of the node that was asked (pve-http-server: AnyEvent::HTTP's own codes), and of gateways in front of it
NO_ANSWER = (502, 503, 504, 595, 596, 597, 599)


class Invalid(InvalidInput):
    """The server refuses parameters; ``parameters`` has its text for each of them."""

    def __init__(self, what: str, *, parameters: Mapping[str, str], where: str = "") -> None:
        super().__init__(what, where=where, hint="Correct these values in the desired state")
        self.parameters = dict(parameters)


class Transient(HostingError):
    """Refused for a moment; the server did nothing."""


class LostAnswer(Transient):
    """The request may or may not have been carried out: look before sending it again."""


class Outdated(Transient):
    """Somebody else changed the object since it was read: read it again."""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: status, reason phrase, ``data`` of the body, and the text for each refused parameter."""

    status: int
    reason: str
    data: Any = None
    errors: Mapping[str, str] = field(default_factory=dict)


# (text, class, hint): the first match decides; "can't lock file" at create means that another create holds the id
ERROR_TEXTS: tuple[tuple[re.Pattern[str], type[HostingError], str], ...] = tuple(
    (re.compile(pattern), error, hint)
    for pattern, error, hint in (
        (
            r"unable to create VM \d+ - can't lock file|already exists|: File exists|is already a pool member",
            Exists,
            "",
        ),
        (
            r"lock.* - got timeout|got lock request timeout|got no worker upid",
            Transient,
            "Run again when the cluster is less busy",
        ),
        # the end of a worker that nobody saw end
        (r"^unexpected status", LostAnswer, "Run again"),
        (r"checksum mismatch \(file change|detected modified configuration", Outdated, "Run again"),
        (r"VM is locked|CT is locked", Locked, "Run again when the task that holds the lock has ended"),
        (
            r"does not exist|no such |unable to find configuration file|no such task|is not a pool member"
            r"|no rule at position",
            NotFound,
            "",
        ),
        (
            r"no quorum|/etc/pve/.*Permission denied",
            BackendError,
            "The cluster has no quorum and takes no changes: bring its nodes back",
        ),
        # qemu-server names neither the option nor the key
        (r"SSH public key validation", InvalidInput, "Correct the keys in cloud_init.ssh_keys"),
        (r"protection mode enabled", Denied, "Remove the protection of the virtual machine first"),
        (r"hostname lookup '.*' failed", NotFound, "Name a node of this cluster"),
        (r"only root can|Only root (can|may)|auto-generated role", Denied, ""),
    )
)


def error_of_text(text: str, where: str = "") -> HostingError:
    """The typed error for a reason phrase or for the exit status of a task."""
    text = text.strip()
    for pattern, error, hint in ERROR_TEXTS:
        if pattern.search(text):
            return error(text, where=where, hint=hint)
    return BackendError(text or "the server gives no reason", where=where)


def error_of_answer(answer: Answer, where: str, identity: str) -> HostingError:
    """The typed error for an answer with status 400 or above."""
    if answer.status == 401:
        return Denied(
            f"the server refuses {identity} ({answer.reason})",
            where=where,
            hint="Check api_user, api_token_id, api_token_secret or api_password, and that the token has not expired",
        )
    if answer.status == 403:
        return _refused(answer, where, identity)
    if answer.status in NO_ANSWER:
        what = f"no answer from the node or daemon behind the API ({answer.status} {answer.reason})"
        return LostAnswer(what, where=where, hint="Check that all nodes of the cluster are up, then run again")
    if answer.errors:
        return _invalid(answer.errors, where)
    if answer.status == 400:
        return Invalid(f"the server refuses the request ({answer.reason})", parameters={}, where=where)
    return error_of_text(answer.reason, where)


def _refused(answer: Answer, where: str, identity: str) -> HostingError:
    """403; a pool that does not exist is one too."""
    missing = re.search(r"\((pool '.*' does not exist)\)", answer.reason)
    if missing:
        return NotFound(missing[1], where=where, hint="Create it first, or correct its name")
    return Denied(f"{identity}: {answer.reason}", where=where, hint="Give the user and its token this privilege")


def _invalid(errors: Mapping[str, str], where: str) -> HostingError:
    texts = set(errors.values())
    if texts == {"no such task"}:
        return NotFound("no such task", where=where)
    if all("already exists" in text for text in texts):
        return Exists("; ".join(sorted(texts)), where=where)
    told = "; ".join(f"{name}: {' '.join(text.split())}" for name, text in sorted(errors.items()))
    return Invalid(f"the server refuses {told}", parameters=errors, where=where)
