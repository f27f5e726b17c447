# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Admin tokens: who may call what. Functions as in :mod:`lab.garage.keys`.

A token with a dot is one of the table (``<id>.<secret>``), a token without is the one of the configuration file.
Garage keeps Argon2id hashes and pays about 17 ms per request for them; here a plain SHA-256 does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from typing import Any

from lab.garage.errors import bad_request, forbidden, no_such_token
from lab.garage.keys import LIST_MAX, expiration, expired, matching
from lab.garage.store import Tables
from lab.garage.times import instant, now_ms

# a valid token may always ask this about itself
ALWAYS_ALLOWED = "GetCurrentAdminTokenInfo"
# beside the query parameters: the id of the token that asks, empty for the configured one
CALLER = "(caller)"
CONFIGURED = {
    "id": None,
    "created": None,
    "name": "admin_token (from daemon configuration)",
    "expiration": None,
    "expired": False,
    "scope": ["*"],
}


def authorize(tables: Tables, admin_token: str, authorization: str | None, endpoint: str) -> str:
    """The id of the token that *authorization* (the header) shows, empty for the one of the configuration.

    :raises ApiError: 403; an unknown, wrong, expired or too narrow token cannot be told apart.
    """
    if authorization is None:
        raise forbidden("Bearer token must be provided in Authorization header")
    if not authorization.startswith("Bearer "):
        raise forbidden("Invalid Authorization header")
    token = authorization.removeprefix("Bearer ").strip()
    if "." not in token:
        _compare(token, _hash(admin_token))
        return ""
    token_id = token.partition(".")[0]
    row = tables["tokens"].get(token_id)
    if row is None or expired(row) or not ({"*", endpoint} & set(row["scope"]) or endpoint == ALWAYS_ALLOWED):
        raise forbidden("Invalid bearer token")
    _compare(token, row["hash"])
    return token_id


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _compare(token: str, expected: str) -> None:
    if not hmac.compare_digest(_hash(token), expected):
        raise forbidden("Invalid bearer token")


def list_admin_tokens(tables: Tables, _query: dict[str, str], _body: Any) -> list[dict[str, Any]]:
    rows = [token_id for token_id, row in sorted(tables["tokens"].items()) if row is not None]
    return [CONFIGURED, *(_info(tables, token_id) for token_id in rows[:LIST_MAX])]


def get_admin_token_info(tables: Tables, query: dict[str, str], _body: Any) -> dict[str, Any]:
    if ("id" in query) == ("search" in query):
        raise bad_request("Either id or search must be provided (but not both)")
    if "id" in query:
        return _info(tables, query["id"])
    found = matching(tables["tokens"], query["search"])
    if len(found) != 1:
        raise bad_request(f"{len(found)} matching admin tokens")
    return _info(tables, found[0])


def get_current_admin_token_info(tables: Tables, query: dict[str, str], _body: Any) -> dict[str, Any]:
    return _info(tables, query[CALLER]) if query[CALLER] else CONFIGURED


def create_admin_token(tables: Tables, _query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    token_id = secrets.token_hex(12)
    secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    token = f"{token_id}.{secret}"
    row = {
        "name": f"token_{datetime.now(UTC):%Y%m%d_%H%M}",
        "hash": _hash(token),
        "created": now_ms(),
        "expiration": None,
        "scope": ["*"],
    }
    _update(row, body)
    tables["tokens"][token_id] = row
    return {**_info(tables, token_id), "secretToken": token}


def update_admin_token(tables: Tables, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    _update(_existing(tables, query["id"]), body)
    return _info(tables, query["id"])


def delete_admin_token(tables: Tables, query: dict[str, str], _body: Any) -> None:
    _existing(tables, query["id"])
    tables["tokens"][query["id"]] = None


def _update(row: dict[str, Any], body: dict[str, Any]) -> None:
    row["expiration"] = expiration(row, body)
    row["name"] = body.get("name", row["name"])
    row["scope"] = body.get("scope", row["scope"])


def _existing(tables: Tables, token_id: str) -> dict[str, Any]:
    row: dict[str, Any] | None = tables["tokens"].get(token_id)
    if row is None:
        raise no_such_token(token_id)
    return row


def _info(tables: Tables, token_id: str) -> dict[str, Any]:
    row = _existing(tables, token_id)
    return {
        "id": token_id,
        "created": instant(row["created"]),
        "name": row["name"],
        "expiration": instant(row["expiration"]),
        "expired": expired(row),
        "scope": row["scope"],
    }
