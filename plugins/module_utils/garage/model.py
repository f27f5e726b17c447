# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Typed state of keys and buckets: what is wanted, and what Garage shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.names import OWNER_TAG

# prefix of the names of keys that are ours; everything else belongs to somebody else
OWNED = f"{OWNER_TAG}/"


@dataclass(frozen=True)
class Permission:
    """What a key may do with a bucket."""

    read: bool = False
    write: bool = False
    owner: bool = False

    def flags(self) -> frozenset[str]:
        """The names of the flags that are set, as the API spells them."""
        return frozenset(name for name in ("read", "write", "owner") if getattr(self, name))


@dataclass(frozen=True)
class Quotas:
    """Bytes and number of objects; None is unlimited, 0 is a limit."""

    max_size: int | None = None
    max_objects: int | None = None


@dataclass(frozen=True)
class Website:
    """Website access with these documents."""

    index_document: str
    error_document: str | None = None


@dataclass(frozen=True)
class DesiredKey:
    """``access_key_id`` and ``secret`` come together; a key that is to go needs neither."""

    name: str
    access_key_id: str | None = None
    secret: str | None = field(default=None, repr=False)
    present: bool = True

    @property
    def item(self) -> str:
        return key_item(self.name)


@dataclass(frozen=True)
class DesiredBucket:
    """``name`` is a global alias. None for quotas, website or permissions: leave them as they are.

    ``website`` is False to switch it off. ``permissions`` are (key name, permission); ``key_ids`` are the access key
    ids of those names, which the plan finds out.
    """

    name: str
    id: str | None = None
    quotas: Quotas | None = None
    website: Website | Literal[False] | None = None
    permissions: tuple[tuple[str, Permission], ...] | None = None
    key_ids: tuple[str, ...] = ()
    present: bool = True

    @property
    def item(self) -> str:
        return bucket_item(self.name)


Desired: TypeAlias = "DesiredKey | DesiredBucket"


@dataclass(frozen=True)
class KeyRow:
    """One key as ListKeys shows it."""

    id: str
    name: str
    expired: bool


@dataclass(frozen=True)
class ActualKey:
    """Every key that has the name of the item or the id that the item wants: names are not unique."""

    matches: tuple[KeyRow, ...]


@dataclass(frozen=True)
class Grant:
    """A key that Garage lists with a bucket (its permission may be empty)."""

    key_id: str
    key_name: str
    permission: Permission

    @property
    def owned(self) -> bool:
        return is_owned(self.key_name)


@dataclass(frozen=True)
class ActualBucket:
    """``website`` is None when there is no website access."""

    id: str
    aliases: tuple[str, ...]
    quotas: Quotas
    website: Website | None
    grants: tuple[Grant, ...]
    objects: int


Actual: TypeAlias = "ActualKey | ActualBucket"


def is_owned(key_name: str) -> bool:
    """Whether a key of this name is ours."""
    return key_name.startswith(OWNED)


def key_item(name: str) -> str:
    """Name of a key among the items of a run; keys and buckets share one result."""
    return f"key {name}"


def bucket_item(name: str) -> str:
    """Name of a bucket among the items of a run."""
    return f"bucket {name}"


def key_rows(answer: Sequence[Mapping[str, Any]]) -> tuple[KeyRow, ...]:
    """The keys of a ListKeys answer, sorted by id."""
    rows = [KeyRow(id=row["id"], name=row["name"], expired=row["expired"]) for row in answer]
    return tuple(sorted(rows, key=lambda row: row.id))


def bucket_from(answer: Mapping[str, Any]) -> ActualBucket:
    """The bucket of a GetBucketInfo answer (CreateBucket, UpdateBucket and others answer the same)."""
    website = answer.get("websiteConfig")
    grants = [
        Grant(
            key["accessKeyId"],
            key["name"],
            Permission(**{flag: bool(key["permissions"].get(flag)) for flag in ("read", "write", "owner")}),
        )
        for key in answer["keys"]
    ]
    return ActualBucket(
        id=answer["id"],
        aliases=tuple(sorted(answer["globalAliases"])),
        quotas=Quotas(answer["quotas"].get("maxSize"), answer["quotas"].get("maxObjects")),
        website=Website(website["indexDocument"], website.get("errorDocument")) if website else None,
        grants=tuple(sorted(grants, key=lambda grant: grant.key_id)),
        objects=answer["objects"],
    )


_STATE = {"type": "str", "choices": ["present", "absent"], "default": "present"}
_FLAG = {"type": "bool", "default": False}
# matches the documentation of the module garage_buckets
BUCKET_ARGUMENTS: dict[str, dict[str, Any]] = {
    "keys": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "no_log": False,
        "options": {
            "name": {"type": "str", "required": True},
            "access_key_id": {"type": "str"},
            "secret_access_key": {"type": "str", "no_log": True},
            "state": _STATE,
        },
    },
    "buckets": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "id": {"type": "str"},
            "quotas": {"type": "dict", "options": {"max_size": {"type": "int"}, "max_objects": {"type": "int"}}},
            "website": {
                "type": "dict",
                "options": {
                    "enabled": {"type": "bool", "required": True},
                    "index_document": {"type": "str", "default": "index.html"},
                    "error_document": {"type": "str"},
                },
            },
            "permissions": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "key": {"type": "str", "required": True, "no_log": False},
                    "read": _FLAG,
                    "write": _FLAG,
                    "owner": _FLAG,
                },
            },
            "state": _STATE,
        },
    },
}


def desired_from(params: Mapping[str, Any]) -> list[Desired]:
    """The items of a module's ``keys`` and ``buckets`` options."""
    return [*map(_desired_key, params["keys"] or ()), *map(_desired_bucket, params["buckets"] or ())]


def _desired_key(option: Mapping[str, Any]) -> DesiredKey:
    return DesiredKey(
        name=option["name"],
        access_key_id=option["access_key_id"],
        secret=option["secret_access_key"],
        present=option["state"] == "present",
    )


def _desired_bucket(option: Mapping[str, Any]) -> DesiredBucket:
    quotas, website, permissions = option["quotas"], option["website"], option["permissions"]
    return DesiredBucket(
        name=option["name"],
        id=option["id"],
        quotas=None if quotas is None else Quotas(quotas["max_size"], quotas["max_objects"]),
        website=None if website is None else _website(website),
        permissions=None if permissions is None else tuple(map(_permission, permissions)),
        present=option["state"] == "present",
    )


def _website(option: Mapping[str, Any]) -> Website | Literal[False]:
    return Website(option["index_document"], option["error_document"]) if option["enabled"] else False


def _permission(option: Mapping[str, Any]) -> tuple[str, Permission]:
    return option["key"], Permission(option["read"], option["write"], option["owner"])
