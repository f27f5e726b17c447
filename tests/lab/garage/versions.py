# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Garage 2.0.0 does not know of the admin API of 2.3.0: it drops those fields without a word."""

from __future__ import annotations

from typing import Any

from lab.garage.store import OLDEST

NEWER_ENDPOINTS = frozenset({"/v2/GetCurrentAdminTokenInfo"})
NEWER_FIELDS = ("corsRules", "lifecycleRules")


def knows(version: str, path: str) -> bool:
    """Whether a server of *version* has the endpoint."""
    return version != OLDEST or path not in NEWER_ENDPOINTS


def request_body(version: str, body: Any) -> Any:
    """The fields of a request that a server of *version* reads."""
    if version != OLDEST or not isinstance(body, dict):
        return body
    known = {name: value for name, value in body.items() if name not in NEWER_FIELDS}
    if isinstance(body.get("websiteAccess"), dict):
        known["websiteAccess"] = {
            name: value for name, value in body["websiteAccess"].items() if name != "routingRules"
        }
    return known


def answer_body(version: str, body: Any) -> Any:
    """The fields of an answer that a server of *version* gives."""
    if not isinstance(body, dict):
        return body
    if "nodes" in body:
        return {**body, "nodes": [{**node, "garageVersion": version} for node in body["nodes"]]}
    if version != OLDEST:
        return _with_permissions_only(body)
    known = {name: value for name, value in body.items() if name not in NEWER_FIELDS}
    if "websiteAccess" in body:
        website = body.get("websiteConfig")
        known["websiteConfig"] = website and {name: value for name, value in website.items() if name != "routingRules"}
    return known


def _with_permissions_only(body: dict[str, Any]) -> dict[str, Any]:
    """A bucket without the keys, or a key without the buckets, that only a local alias or a past permission joins."""
    lists = {name: body[name] for name in ("keys", "buckets") if isinstance(body.get(name), list)}
    return {
        **body,
        **{name: [row for row in rows if any(row["permissions"].values())] for name, rows in lists.items()},
    }
