# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Arguments that modules about DNS share."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import env_fallback

Arguments = dict[str, dict[str, Any]]

ALGORITHMS = ["hmac-sha256", "hmac-sha384", "hmac-sha512"]

# matches doc_fragments/dns.py
SERVER_ARGUMENTS: Arguments = {
    "server": {"type": "str", "fallback": (env_fallback, ["DNS_SERVER"])},
    "port": {"type": "int", "default": 53, "fallback": (env_fallback, ["DNS_PORT"])},
    "tsig_name": {"type": "str", "fallback": (env_fallback, ["DNS_TSIG_NAME"])},
    "tsig_secret": {"type": "str", "no_log": True, "fallback": (env_fallback, ["DNS_TSIG_SECRET"])},
    "tsig_algorithm": {
        "type": "str",
        "default": "hmac-sha256",
        "choices": ALGORITHMS,
        "fallback": (env_fallback, ["DNS_TSIG_ALGORITHM"]),
    },
}
TSIG_TOGETHER = [("tsig_name", "tsig_secret")]

_COMMON: Arguments = {
    "type": {"type": "str", "required": True},
    "ttl": {"type": "int", "default": 3600},
    "value": {"type": "list", "elements": "str", "default": []},
    "adopt": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
_ZONE: Arguments = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str", "default": "fediversity"},
    "purge": {"type": "bool", "default": False},
    "adopt": {"type": "bool", "default": False},
    "record_sets": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"record": {"type": "str"}, "prefix": {"type": "str"}, **_COMMON},
        "mutually_exclusive": [("record", "prefix")],
        "required_one_of": [("record", "prefix")],
    },
    "records": {"type": "str", "default": ""},
}

# dns_records and octodns_export take the same lists
ZONES_ARGUMENT: dict[str, Any] = {"type": "list", "elements": "dict", "options": _ZONE}
RECORD_SETS_ARGUMENT: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {"record": {"type": "str", "required": True}, **_COMMON},
}
