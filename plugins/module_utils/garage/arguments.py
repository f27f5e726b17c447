# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the Garage modules, and the desired state that they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    CONTRADICTION,
    NEVER,
    Desired,
    DesiredBucket,
    DesiredKey,
    Permission,
    Quotas,
    Website,
    instant,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.rules import (
    cors_from_option,
    lifecycle_from_option,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.scopes import PRESETS
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.tokens import DesiredToken

STATE = {"type": "str", "choices": ["present", "absent"], "default": "present"}
_FLAG = {"type": "bool", "default": False}
_TEXTS = {"type": "list", "elements": "str"}

_IMPORTED = {
    "name": {"type": "str", "required": True},
    "access_key_id": {"type": "str"},
    "secret_access_key": {"type": "str", "no_log": True},
    "state": STATE,
}
# matches the documentation of the module garage_keys
KEY_ARGUMENTS: dict[str, dict[str, Any]] = {
    "keys": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "no_log": False,
        "options": {
            **_IMPORTED,
            # a path is no secret
            "secret_file": {"type": "path", "no_log": False},
            "create_bucket": {"type": "bool"},
            "expiration": {"type": "str"},
            "never_expires": _FLAG,
        },
    },
}
# matches the documentation of the module garage_buckets
BUCKET_ARGUMENTS: dict[str, dict[str, Any]] = {
    "keys": {"type": "list", "elements": "dict", "default": [], "no_log": False, "options": _IMPORTED},
    "buckets": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "id": {"type": "str"},
            "aliases": _TEXTS,
            "local_aliases": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "key": {"type": "str", "required": True, "no_log": False},
                    "alias": {"type": "str", "required": True},
                },
            },
            "quotas": {"type": "dict", "options": {"max_size": {"type": "int"}, "max_objects": {"type": "int"}}},
            "website": {
                "type": "dict",
                "options": {
                    "enabled": {"type": "bool", "required": True},
                    "index_document": {"type": "str", "default": "index.html"},
                    "error_document": {"type": "str"},
                },
            },
            "cors_rules": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "id": {"type": "str"},
                    "allowed_origins": {**_TEXTS, "default": []},
                    "allowed_methods": {**_TEXTS, "default": []},
                    "allowed_headers": {**_TEXTS, "default": []},
                    "expose_headers": {**_TEXTS, "default": []},
                    "max_age_seconds": {"type": "int"},
                },
            },
            "lifecycle_rules": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "id": {"type": "str"},
                    "enabled": {"type": "bool", "default": True},
                    "prefix": {"type": "str"},
                    "object_size_greater_than": {"type": "int"},
                    "object_size_less_than": {"type": "int"},
                    "expiration_days": {"type": "int"},
                    "expiration_date": {"type": "str"},
                    "abort_incomplete_multipart_upload_days": {"type": "int"},
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
            "cleanup_incomplete_uploads": {"type": "int"},
            "export_dir": {"type": "path"},
            "state": STATE,
        },
    },
}
# matches the documentation of the module garage_admin_tokens
TOKEN_ARGUMENTS: dict[str, dict[str, Any]] = {
    "tokens": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "no_log": False,
        "options": {
            "name": {"type": "str", "required": True},
            "scope": _TEXTS,
            "presets": {**_TEXTS, "choices": sorted(PRESETS)},
            "expiration": {"type": "str"},
            "never_expires": _FLAG,
            "lifetime": {"type": "int"},
            # a path is no secret
            "token_file": {"type": "path", "no_log": False},
            "state": STATE,
        },
    },
}


def desired_keys(options: Sequence[Mapping[str, Any]]) -> list[Desired]:
    """The items of the option ``keys``."""
    return [_key(option) for option in options]


def desired_buckets(options: Sequence[Mapping[str, Any]]) -> list[Desired]:
    """The items of the option ``buckets``."""
    return [_bucket(option) for option in options]


def desired_tokens(options: Sequence[Mapping[str, Any]]) -> list[DesiredToken]:
    """The items of the option ``tokens``."""
    return [_token(option) for option in options]


def _expiration(option: Mapping[str, Any]) -> str | None:
    """What ``expiration`` and ``never_expires`` mean; what is no instant stays as it is, to be refused."""
    if option.get("never_expires"):
        return NEVER if option.get("expiration") is None else CONTRADICTION
    text = option.get("expiration")
    if text is None:
        return None
    try:
        return instant(text)
    except ValueError:
        return str(text)


def _key(option: Mapping[str, Any]) -> DesiredKey:
    return DesiredKey(
        name=option["name"],
        access_key_id=option["access_key_id"],
        secret=option["secret_access_key"],
        present=option["state"] == "present",
        secret_file=option.get("secret_file"),
        create_bucket=option.get("create_bucket"),
        expiration=_expiration(option),
    )


def _bucket(option: Mapping[str, Any]) -> DesiredBucket:
    quotas, website = option["quotas"], option["website"]
    return DesiredBucket(
        name=option["name"],
        id=option["id"],
        quotas=None if quotas is None else Quotas(quotas["max_size"], quotas["max_objects"]),
        website=None if website is None else _website(website),
        permissions=_items(option["permissions"], _permission),
        present=option["state"] == "present",
        aliases=None if option["aliases"] is None else tuple(option["aliases"]),
        local_aliases=_items(option["local_aliases"], _local_alias),
        cors_rules=_items(option["cors_rules"], cors_from_option),
        lifecycle_rules=_items(option["lifecycle_rules"], lifecycle_from_option),
        cleanup_incomplete_uploads=option["cleanup_incomplete_uploads"],
        export_dir=option["export_dir"],
    )


def _items(options: Sequence[Mapping[str, Any]] | None, convert: Any) -> tuple[Any, ...] | None:
    return None if options is None else tuple(convert(option) for option in options)


def _website(option: Mapping[str, Any]) -> Website | Literal[False]:
    return Website(option["index_document"], option["error_document"]) if option["enabled"] else False


def _permission(option: Mapping[str, Any]) -> tuple[str, Permission]:
    return option["key"], Permission(option["read"], option["write"], option["owner"])


def _local_alias(option: Mapping[str, Any]) -> tuple[str, str]:
    return option["key"], option["alias"]


def _token(option: Mapping[str, Any]) -> DesiredToken:
    scope, presets = option["scope"], option["presets"]
    endpoints = {*(scope or ()), *(endpoint for preset in presets or () for endpoint in PRESETS[preset])}
    return DesiredToken(
        name=option["name"],
        scope=None if scope is None and presets is None else tuple(sorted(endpoints)),
        expiration=_expiration(option),
        lifetime=option["lifetime"],
        token_file=option["token_file"],
        present=option["state"] == "present",
    )
