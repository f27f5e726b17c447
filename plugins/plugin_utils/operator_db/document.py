# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The format of operators.yml."""

from __future__ import annotations

from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.names import LABEL_MAX, SLUG_MAX
from ansible_collections.fediversity.hosting.plugins.plugin_utils.documents import MEANING

_SLUG_PATTERN = "^[a-z0-9]+(-[a-z0-9]+)*$"


def _object(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def _list(items: dict[str, Any], minimum: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": minimum}


def _slug(maximum: int = SLUG_MAX, pattern: str = _SLUG_PATTERN) -> dict[str, Any]:
    return {
        "type": "string",
        "pattern": pattern,
        "maxLength": maximum,
        MEANING: f"a name of 1 to {maximum} lower-case letters, digits and single hyphens between them",
    }


def _text(maximum: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": maximum}


def _integer(minimum: int, maximum: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": minimum, "maximum": maximum}


_WORD = {"type": "string", "minLength": 1, "maxLength": 255}
_PORT = _integer(1, 65535)
_ADDRESS = _text(45)
# RFC 1035 section 2.3.4 (lengths), RFC 5890 section 2.3.2.1 (international names in their ASCII form)
_DOMAIN = {
    "type": "string",
    "pattern": r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    "maxLength": 253,
    MEANING: "a domain name in lower case without a final dot (international names in their xn-- form)",
}
_CONTACT = {
    "type": "string",
    "pattern": r"^[^@\s]+@[^@\s]+$",
    "maxLength": 254,
    MEANING: "a mail address",
}
_MODULE_VERSION = {
    "type": "string",
    "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$",
    "maxLength": 64,
    MEANING: 'a version (letters, digits, dots, hyphens, underscores; quote it: "1")',
}

_ENVIRONMENT = _object(
    ["name", "stage", "zones", "network"],
    {
        "name": _slug(),
        "stage": {"enum": ["staging", "production"]},
        "zones": _list(_DOMAIN, 1),
        "network": _object(
            ["subnet", "gateway", "nameservers"],
            {
                "subnet": _text(49),
                "gateway": _ADDRESS,
                "nameservers": _list(_ADDRESS, 1),
                "pool": _text(91),
            },
        ),
        "proxmox": _object(
            ["storage", "image", "bridge"],
            {"node": _WORD, "nodes": _list(_WORD, 1), "storage": _WORD, "image": _WORD, "bridge": _WORD},
        ),
        "postgresql": _object(["host", "port"], {"host": _WORD, "port": _PORT}),
        "garage": _object(["s3_endpoint", "region"], {"s3_endpoint": _WORD, "region": _WORD}),
    },
)

_MACHINE = _object(
    ["name", "environment", "runtime"],
    {
        "name": _slug(LABEL_MAX),
        "environment": _slug(),
        "runtime": {"enum": ["proxmox", "existing"]},
        "address": _ADDRESS,
        "ssh_port": _PORT,
        "cores": _integer(1, 1024),
        "memory": _integer(256, 16_777_216),
        "disk": _integer(1, 1_048_576),
    },
)

_INSTANCE = _object(
    ["application", "machine", "domain"],
    {
        "application": _slug(),
        "machine": _slug(LABEL_MAX),
        "domain": _DOMAIN,
        "settings": {"type": "object"},
        "nixos_options": {"type": "object"},
    },
)

_DEPLOYMENT = _object(
    ["name", "environment", "applications"],
    {
        "name": _slug(),
        "environment": _slug(),
        "state": {"enum": ["enabled", "disabled"]},
        "module_version": _MODULE_VERSION,
        "applications": _list(_INSTANCE),
    },
)

_OPERATOR = _object(
    ["name", "display_name", "contact"],
    {
        "name": _slug(),
        "display_name": {"type": "string", "minLength": 1, "maxLength": 200},
        "contact": _CONTACT,
        "deployments": _list(_DEPLOYMENT),
    },
)

# JSON Schema, draft 2020-12
SCHEMA: dict[str, Any] = _object(
    ["version"],
    {
        "version": {"const": 1},
        "environments": _list(_ENVIRONMENT),
        "machines": _list(_MACHINE),
        "operators": _list(_OPERATOR),
    },
)
