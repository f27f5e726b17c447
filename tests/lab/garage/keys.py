# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Access keys. Every function takes the tables, the query parameters and the parsed body, and returns the answer."""

from __future__ import annotations

import re
import secrets
from typing import Any

from lab.garage.errors import bad_request, conflict, no_such_key
from lab.garage.shapes import instant_ms
from lab.garage.store import Tables
from lab.garage.times import instant, now_ms

# ListKeys and ListAdminTokens end there without a word
LIST_MAX = 10_000
# the form that every v2 server takes; 2.3 takes others too
KEY_ID = re.compile(r"GK[0-9a-fA-F]{24}\Z")
SECRET_KEY = re.compile(r"[0-9a-fA-F]{64}\Z")


def expired(row: dict[str, Any]) -> bool:
    return row["expiration"] is not None and now_ms() >= row["expiration"]


def existing(tables: Tables, key_id: str) -> dict[str, Any]:
    """The row of a key.

    :raises ApiError: 404, the key does not exist or was deleted.
    """
    row: dict[str, Any] | None = tables["keys"].get(key_id)
    if row is None:
        raise no_such_key(key_id)
    return row


def matching(rows: dict[str, Any], search: str) -> list[str]:
    """Ids that begin with *search*, or whose whole name is it; case does not count."""
    pattern = search.lower()
    return [
        row_id
        for row_id, row in sorted(rows.items())
        if row is not None and (row_id.lower().startswith(pattern) or row["name"].lower() == pattern)
    ]


def expiration(row: dict[str, Any], body: dict[str, Any]) -> int | None:
    """The expiration that an update of a key or token leads to.

    :raises ApiError: 400, the update says two things.
    """
    if body.get("neverExpires"):
        if "expiration" in body:
            raise bad_request("cannot specify `expiration` and `never_expires`")
        return None
    kept: int | None = row["expiration"]
    return instant_ms(body["expiration"]) if "expiration" in body else kept


def list_keys(tables: Tables, _query: dict[str, str], _body: Any) -> list[dict[str, Any]]:
    rows = [(key_id, row) for key_id, row in sorted(tables["keys"].items()) if row is not None]
    return [
        {
            "id": key_id,
            "name": row["name"],
            "created": instant(row["created"]),
            "expiration": instant(row["expiration"]),
            "expired": expired(row),
        }
        for key_id, row in rows[:LIST_MAX]
    ]


def get_key_info(tables: Tables, query: dict[str, str], _body: Any) -> dict[str, Any]:
    shown = query.get("showSecretKey", "false")
    if shown not in ("true", "false"):
        raise bad_request("Failed to parse query parameter")
    if ("id" in query) == ("search" in query):
        raise bad_request("Either id or search must be provided (but not both)")
    if "id" in query:
        key_id = query["id"]
    else:
        found = matching(tables["keys"], query["search"])
        if not found:
            raise no_such_key(query["search"])
        if len(found) > 1:
            raise bad_request(f"{len(found)} matching keys")
        key_id = found[0]
    row = existing(tables, key_id)
    return key_info(tables, key_id, row["secret"] if shown == "true" else None)


def create_key(tables: Tables, _query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    key_id = f"GK{secrets.token_hex(12)}"
    row = _new_row("Unnamed key", secrets.token_hex(32))
    _update(row, body)
    tables["keys"][key_id] = row
    return key_info(tables, key_id, row["secret"])


def import_key(tables: Tables, _query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    key_id = body["accessKeyId"]
    if key_id in tables["keys"]:
        raise conflict(
            "KeyAlreadyExists",
            f"Key {key_id} already exists in data store. Even a deleted key's ID is never given out again.",
        )
    if not KEY_ID.match(key_id):
        raise bad_request("Invalid key format: the key ID is not `GK` and 12 hex-encoded bytes")
    if not SECRET_KEY.match(body["secretAccessKey"]):
        raise bad_request("Invalid key format: the secret key is not 32 hex-encoded bytes")
    tables["keys"][key_id] = _new_row(body.get("name", "Imported key"), body["secretAccessKey"])
    return key_info(tables, key_id, None)


def update_key(tables: Tables, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    _update(existing(tables, query["id"]), body)
    return key_info(tables, query["id"], None)


def delete_key(tables: Tables, query: dict[str, str], _body: Any) -> None:
    existing(tables, query["id"])
    for bucket in tables["buckets"].values():
        bucket["keys"].pop(query["id"], None)
    tables["keys"][query["id"]] = None


def key_info(tables: Tables, key_id: str, secret: str | None) -> dict[str, Any]:
    row = tables["keys"][key_id]
    buckets = []
    for bucket_id, bucket in tables["buckets"].items():
        flags = bucket["keys"].get(key_id, [False, False, False])
        local = sorted(name for name, target in row["localAliases"].items() if target == bucket_id)
        if any(flags) or local:
            buckets.append(
                {
                    "id": bucket_id,
                    "globalAliases": sorted(bucket["aliases"]),
                    "localAliases": local,
                    "permissions": permissions(flags),
                }
            )
    return {
        "accessKeyId": key_id,
        "name": row["name"],
        "created": instant(row["created"]),
        "expiration": instant(row["expiration"]),
        "expired": expired(row),
        # absent where it is not shown
        **({} if secret is None else {"secretAccessKey": secret}),
        "permissions": {"createBucket": row["createBucket"]},
        "buckets": buckets,
    }


def permissions(flags: list[bool]) -> dict[str, bool]:
    return dict(zip(("read", "write", "owner"), flags, strict=True))


def _new_row(name: str, secret: str) -> dict[str, Any]:
    return {
        "name": name,
        "secret": secret,
        "created": now_ms(),
        "expiration": None,
        "createBucket": False,
        "localAliases": {},
    }


def _update(row: dict[str, Any], body: dict[str, Any]) -> None:
    row["expiration"] = expiration(row, body)
    row["name"] = body.get("name", row["name"])
    # flags to add and to take away, not a state
    if body.get("allow", {}).get("createBucket"):
        row["createBucket"] = True
    if body.get("deny", {}).get("createBucket"):
        row["createBucket"] = False
