# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Buckets, their aliases and permissions. Functions as in :mod:`lab.garage.keys`."""

from __future__ import annotations

import ipaddress
import random
import re
import secrets
from typing import Any

from lab.garage import keys, settings
from lab.garage.errors import bad_request, conflict, internal, invalid_bucket_name, no_such_bucket
from lab.garage.store import Tables
from lab.garage.times import instant, now_ms

BUCKET_ID = re.compile(r"[0-9a-fA-F]{64}\Z")
BUCKET_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{1,61})[a-z0-9]\Z")
FLAGS = ("read", "write", "owner")


def valid_name(name: str) -> bool:
    """S3 bucket naming rules as Garage applies them (without ``allow_punycode``)."""
    if not BUCKET_NAME.match(name) or name.endswith("-s3alias") or name.startswith("xn--") or ".xn--" in name:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return True
    return False


def bucket_id(text: str) -> str:
    """The id in its normal form.

    :raises ApiError: 400, *text* is no id.
    """
    if not BUCKET_ID.match(text):
        raise bad_request("Invalid bucket id")
    return text.lower()


def existing(tables: Tables, given_id: str) -> dict[str, Any]:
    """The row of a bucket.

    :raises ApiError: 404, it does not exist or was deleted.
    """
    row: dict[str, Any] | None = tables["buckets"].get(given_id)
    if row is None:
        raise no_such_bucket(given_id)
    return row


def list_buckets(tables: Tables, _query: dict[str, str], _body: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": row_id,
            "created": instant(row["created"]),
            "globalAliases": sorted(row["aliases"]),
            "localAliases": [
                {"accessKeyId": key_id, "alias": alias}
                for key_id, key in tables["keys"].items()
                if key is not None
                for alias, target in key["localAliases"].items()
                if target == row_id
            ],
        }
        for row_id, row in sorted(tables["buckets"].items())
    ]


def get_bucket_info(tables: Tables, query: dict[str, str], _body: Any) -> dict[str, Any]:
    given = [name for name in ("id", "globalAlias", "search") if name in query]
    if len(given) != 1:
        raise bad_request("Either id, globalAlias or search must be provided (but not several of them)")
    if "id" in query:
        found = bucket_id(query["id"])
    elif "globalAlias" in query:
        if query["globalAlias"] not in tables["aliases"]:
            raise no_such_bucket(query["globalAlias"])
        found = str(tables["aliases"][query["globalAlias"]])
    else:
        found = _search(tables, query["search"])
    return bucket_info(tables, found)


def _search(tables: Tables, search: str) -> str:
    """A global alias, a whole id, or the beginning of an id (at least one byte)."""
    target = str(tables["aliases"].get(search, ""))
    if target in tables["buckets"]:
        return target
    if BUCKET_ID.match(search) and search.lower() in tables["buckets"]:
        return search.lower()
    if len(search) < 2 or not re.fullmatch(r"[0-9a-fA-F]+", search[: len(search) & ~1]):
        raise no_such_bucket(search)
    if len(search) > 64:
        raise bad_request("invalid length")
    found = [row_id for row_id in sorted(tables["buckets"]) if row_id.startswith(search)]
    if not found:
        raise no_such_bucket(search)
    if len(found) > 1:
        raise bad_request(f"Several matching buckets: {search}")
    return found[0]


def create_bucket(tables: Tables, _query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    alias = body.get("globalAlias")
    local = body.get("localAlias")
    if alias is not None:
        _check_new_name(alias)
        if alias in tables["aliases"]:
            raise conflict("BucketAlreadyExists", "Bucket already exists")
    if local is not None:
        _check_new_name(local["alias"])
        # asks for the name, not for what it points to: a name that was ever used stays refused here
        if local["alias"] in keys.existing(tables, local["accessKeyId"])["localAliases"]:
            raise bad_request("Local alias already exists")
    new_id = secrets.token_hex(32)
    tables["buckets"][new_id] = {
        "created": now_ms(),
        "aliases": [],
        "keys": {},
        "quotas": {"maxSize": None, "maxObjects": None},
        "website": None,
        "corsRules": None,
        "lifecycleRules": None,
    }
    if alias is not None:
        _set_global(tables, new_id, alias)
    if local is not None:
        _set_local(tables, new_id, local["accessKeyId"], local["alias"])
        _change_flags(tables, new_id, local["accessKeyId"], local.get("allow", {}), True)
    return bucket_info(tables, new_id)


def _check_new_name(name: str) -> None:
    if not valid_name(name):
        raise bad_request(f"{name}: Invalid bucket name")


def update_bucket(tables: Tables, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    """Fields that are absent keep their value; a field that is there is replaced as a whole."""
    row_id = bucket_id(query["id"])
    row = existing(tables, row_id)
    if "websiteAccess" in body:
        row["website"] = _website(row["website"], body["websiteAccess"])
    if "quotas" in body:
        row["quotas"] = {"maxSize": None, "maxObjects": None, **body["quotas"]}
    if "corsRules" in body:
        row["corsRules"] = settings.cors_rules(body["corsRules"]) or None
    if "lifecycleRules" in body:
        row["lifecycleRules"] = settings.lifecycle_rules(body["lifecycleRules"]) or None
    return bucket_info(tables, row_id)


def _website(before: dict[str, Any] | None, access: dict[str, Any]) -> dict[str, Any] | None:
    if not access["enabled"]:
        if access.keys() & {"indexDocument", "errorDocument", "routingRules"}:
            raise bad_request("Cannot specify documents or routing rules when disabling website access.")
        return None
    if "indexDocument" not in access:
        raise bad_request("Please specify indexDocument when enabling website access.")
    return {
        "indexDocument": access["indexDocument"],
        "errorDocument": access.get("errorDocument"),
        "routingRules": access.get("routingRules", before["routingRules"] if before else []),
    }


def delete_bucket(tables: Tables, query: dict[str, str], _body: Any) -> None:
    row_id = bucket_id(query["id"])
    existing(tables, row_id)
    if tables.objects.counts(row_id)["objects"]:
        raise conflict("BucketNotEmpty", "Tried to delete a non-empty bucket")
    for key in tables["keys"].values():
        if key is not None:
            for alias, target in key["localAliases"].items():
                if target == row_id:
                    key["localAliases"][alias] = None
    tables["aliases"] = {name: target for name, target in tables["aliases"].items() if target != row_id}
    del tables["buckets"][row_id]


def cleanup_incomplete_uploads(tables: Tables, _query: dict[str, str], body: dict[str, Any]) -> dict[str, int]:
    """As in Garage an unknown bucket is no error: it has no uploads."""
    row_id = bucket_id(body["bucketId"])
    return {"uploadsDeleted": tables.objects.forget_before(row_id, now_ms() - 1000 * body["olderThanSecs"])}


def allow_bucket_key(tables: Tables, _query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    return _change_permissions(tables, body, True)


def deny_bucket_key(tables: Tables, _query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    return _change_permissions(tables, body, False)


def _change_permissions(tables: Tables, body: dict[str, Any], value: bool) -> dict[str, Any]:
    row_id = bucket_id(body["bucketId"])
    existing(tables, row_id)
    keys.existing(tables, body["accessKeyId"])
    _change_flags(tables, row_id, body["accessKeyId"], body["permissions"], value)
    return bucket_info(tables, row_id)


def _change_flags(tables: Tables, row_id: str, key_id: str, chosen: dict[str, bool], value: bool) -> None:
    """Only flags that are true count; a key that lost all of them stays listed with the bucket."""
    before = tables["buckets"][row_id]["keys"].get(key_id, [False, False, False])
    after = [value if chosen.get(flag) else old for flag, old in zip(FLAGS, before, strict=True)]
    tables["buckets"][row_id]["keys"][key_id] = after


def add_bucket_alias(tables: Tables, _query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    row_id = bucket_id(body["bucketId"])
    if "globalAlias" in body:
        if not valid_name(body["globalAlias"]):
            raise invalid_bucket_name(body["globalAlias"])
        existing(tables, row_id)
        _set_global(tables, row_id, body["globalAlias"])
    else:
        if not valid_name(body["localAlias"]):
            raise invalid_bucket_name(body["localAlias"])
        existing(tables, row_id)
        _set_local(tables, row_id, body["accessKeyId"], body["localAlias"])
    return bucket_info(tables, row_id)


def _set_global(tables: Tables, row_id: str, alias: str) -> None:
    target = tables["aliases"].get(alias, row_id)
    if target != row_id:
        raise bad_request(f"Alias {alias} already exists and points to different bucket: {target[:16]}")
    tables["aliases"][alias] = row_id
    row = tables["buckets"][row_id]
    row["aliases"] = sorted({*row["aliases"], alias})


def _set_local(tables: Tables, row_id: str, key_id: str, alias: str) -> None:
    aliases = keys.existing(tables, key_id)["localAliases"]
    target = aliases.get(alias)
    if target not in (None, row_id):
        raise bad_request(
            f"Alias {alias} already exists in namespace of key {key_id} and points to different bucket: {target[:16]}"
        )
    aliases[alias] = row_id
    tables["buckets"][row_id]["keys"].setdefault(key_id, [False, False, False])


def remove_bucket_alias(tables: Tables, _query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    row_id = bucket_id(body["bucketId"])
    row = existing(tables, row_id)
    local_count = sum(
        target == row_id for key in tables["keys"].values() if key for target in key["localAliases"].values()
    )
    if "globalAlias" in body:
        alias = body["globalAlias"]
        if tables["aliases"].get(alias) != row_id:
            raise internal(f"alias not found or does not point to bucket {row_id[:16]}")
        _check_not_last(alias, local_count + len([name for name in row["aliases"] if name != alias]))
        del tables["aliases"][alias]
        row["aliases"] = [name for name in row["aliases"] if name != alias]
    else:
        alias = body["localAlias"]
        aliases = keys.existing(tables, body["accessKeyId"])["localAliases"]
        if aliases.get(alias) != row_id:
            raise internal(f"Bucket {row_id[:16]} does not have alias {alias} in namespace of key")
        _check_not_last(alias, local_count - 1 + len(row["aliases"]))
        aliases[alias] = None
    return bucket_info(tables, row_id)


def _check_not_last(alias: str, others: int) -> None:
    if not others:
        raise bad_request(f"Bucket {alias} doesn't have other aliases, please delete it instead of just unaliasing.")


def bucket_info(tables: Tables, row_id: str) -> dict[str, Any]:
    row = existing(tables, row_id)
    listed = [
        {
            "accessKeyId": key_id,
            "name": tables["keys"][key_id]["name"],
            "permissions": keys.permissions(flags),
            "bucketLocalAliases": sorted(
                alias for alias, target in tables["keys"][key_id]["localAliases"].items() if target == row_id
            ),
        }
        for key_id, flags in row["keys"].items()
    ]
    # comes out of a hash map in Garage: no order to rely on
    random.shuffle(listed)
    return {
        "id": row_id,
        "created": instant(row["created"]),
        "globalAliases": sorted(row["aliases"]),
        "websiteAccess": row["website"] is not None,
        # absent where there are none
        **({"websiteConfig": row["website"]} if row["website"] is not None else {}),
        **{name: row[name] for name in ("corsRules", "lifecycleRules") if row[name] is not None},
        "keys": listed,
        **tables.objects.counts(row_id),
        "quotas": row["quotas"],
    }


def is_website(tables: Tables, domain: str) -> bool:
    """Whether ``/check`` answers 200 for *domain*: a global alias of a bucket with website access."""
    row = tables["buckets"].get(tables["aliases"].get(domain, ""))
    return row is not None and row["website"] is not None


def check_domain(tables: Tables, query: dict[str, str], _body: Any) -> str:
    domain = query["domain"]
    if not is_website(tables, domain):
        raise bad_request(f"Domain '{domain}' is not managed by Garage")
    return f"Domain '{domain}' is managed by Garage"
