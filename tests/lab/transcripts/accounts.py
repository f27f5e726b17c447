# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who sends a request: the names in `auth` of a transcript file, as headers for this server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from .wire import Answer, EntryPoint, send

TOKEN = re.compile(r"[^\s,!()]+@[\w.-]+![\w.-]+")
NOBODY = "00000000-0000-0000-0000-000000000000"


class LoginError(Exception):
    """The server does not accept the credentials that were given."""


@dataclass
class Accounts:
    """Credentials of root, and the secrets of the tokens that were made on the way.

    `meanings` is `world.auth` of the file: the prose names the token, and says when its secret is wrong.
    """

    server: EntryPoint
    meanings: Mapping[str, str]
    user: str
    password: str
    secrets: dict[str, str] = field(default_factory=dict)  # full token id -> secret
    _ticket: dict[str, str] = field(default_factory=dict)

    def headers(self, auth: str) -> dict[str, str]:
        meaning = self._meaning(auth)
        if meaning.startswith("Authorization: "):
            return {"Authorization": meaning.removeprefix("Authorization: ")}
        if auth.startswith("ticket"):
            return self._with_ticket(auth)
        if auth == "none":
            return {}
        token = self.token_of(auth)
        secret = NOBODY if "wrong" in meaning else self.secrets.get(token, NOBODY)
        return {"Authorization": f"PVEAPIToken={token}={secret}"}

    def _meaning(self, auth: str) -> str:
        """The prose of a name; one entry may explain several names, in order."""
        for names, text in self.meanings.items():
            parts = [name.strip() for name in names.split(",")]
            if auth in parts:
                found = TOKEN.findall(text)
                return found[parts.index(auth)] if len(parts) > 1 and len(found) == len(parts) else text
        return ""

    def token_of(self, auth: str) -> str:
        found = TOKEN.search(self._meaning(auth))
        if not found:
            raise LoginError(f"the file does not say who {auth!r} is")
        return found[0]

    def remember(self, data: object) -> None:
        """Takes the secret of a token from the answer that tells it once."""
        if isinstance(data, dict) and isinstance(data.get("full-tokenid"), str) and "value" in data:
            self.secrets[data["full-tokenid"]] = str(data["value"])

    def _with_ticket(self, auth: str) -> dict[str, str]:
        if not self._ticket:
            self._ticket = self._log_in()
        headers = {"Cookie": f"PVEAuthCookie={quote(self._ticket['ticket'], safe='')}"}
        if auth == "ticket":
            headers["CSRFPreventionToken"] = self._ticket["CSRFPreventionToken"]
        elif auth == "ticket-bad-csrf":
            headers["CSRFPreventionToken"] = "4B3D6A5E:nonsense"
        return headers

    def _log_in(self) -> dict[str, str]:
        if not self.password:
            raise LoginError(f"the password of {self.user} is needed for a ticket (PROXMOX_PASSWORD)")
        params = {"username": self.user, "password": self.password}
        answer = send(self.server, {"method": "POST", "path": "/access/ticket", "params": params}, {})
        if answer.status != 200:
            raise LoginError(f"{self.user}: {answer.status} {answer.reason}")
        return dict(answer.data)

    def require_token(self) -> None:
        """Makes the token of the name `token` when its secret was not given."""
        token = self.token_of("token")
        if token in self.secrets:
            return
        user, _unused, name = token.partition("!")
        path = f"/access/users/{quote(user, safe='@')}/token/{name}"
        headers = self._with_ticket("ticket")
        request: dict[str, Any] = {"method": "POST", "path": path, "params": {"privsep": "0"}}
        answer = send(self.server, request, headers)
        if answer.status == 400:  # it exists, and nobody can ask for its secret
            send(self.server, {"method": "DELETE", "path": path, "params": {}}, headers)
            answer = send(self.server, request, headers)
        if answer.status != 200:
            raise LoginError(f"{token}: {answer.status} {answer.reason}")
        self.remember(answer.data)


def failed(answer: Answer) -> str:
    """A refused request in one line."""
    errors = answer.body.get("errors") if isinstance(answer.body, dict) else None
    return f"{answer.status} {answer.reason}" + (f" {errors}" if errors else "")
