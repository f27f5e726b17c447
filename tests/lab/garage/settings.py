# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CORS and lifecycle rules: what is refused, and the form in which Garage keeps and shows them.

Both the admin API and the S3 API write and read them; fields have the names of the S3 API.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from lab.garage.errors import bad_request

# an HTTP method or header name (RFC 9110 section 5.6.2)
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
CONDITIONS = ("ObjectSizeGreaterThan", "ObjectSizeLessThan", "Prefix")


def cors_rules(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rules as Garage shows them.

    :raises ApiError: 400, a method or header name is none.
    """
    for rule in rules:
        for method in rule["AllowedMethod"]:
            if not TOKEN.match(method):
                raise bad_request("Invalid CORSRule method: invalid HTTP method")
        for header in (*rule.get("AllowedHeader", ()), *rule.get("ExposeHeader", ())):
            if not TOKEN.match(header):
                raise bad_request("Invalid HTTP header name: invalid HTTP header name")
    return [
        _given(
            ID=rule.get("ID"),
            MaxAgeSeconds=rule.get("MaxAgeSeconds"),
            AllowedOrigin=rule["AllowedOrigin"],
            AllowedMethod=rule["AllowedMethod"],
            AllowedHeader=rule.get("AllowedHeader", []),
            ExposeHeader=rule.get("ExposeHeader", []),
        )
        for rule in rules
    ]


def lifecycle_rules(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As :func:`cors_rules`; a filter of several conditions has them in ``And``, one of a single condition has not."""
    return [_lifecycle_rule(rule) for rule in rules]


def _lifecycle_rule(rule: dict[str, Any]) -> dict[str, Any]:
    if rule["Status"] not in ("Enabled", "Disabled"):
        raise _invalid("invalid value for <Status>")
    abort = rule.get("AbortIncompleteMultipartUpload")
    return _given(
        ID=rule.get("ID"),
        Status=rule["Status"],
        Filter=_filter(rule.get("Filter") or {}),
        Expiration=_expiration(rule.get("Expiration")),
        AbortIncompleteMultipartUpload=abort and {"DaysAfterInitiation": abort["DaysAfterInitiation"]},
    )


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _filter(given: dict[str, Any]) -> dict[str, Any] | None:
    inner = {name: given[name] for name in CONDITIONS if given.get(name) is not None}
    both = given.get("And")
    if both is not None:
        if inner:
            raise _invalid("Filter tag cannot contain both <And> and another condition")
        if both.get("And") is not None:
            raise _invalid("Nested <And> tags")
        inner = {name: both[name] for name in CONDITIONS if both.get(name) is not None}
    elif len(inner) > 1:
        raise _invalid("Multiple Filter conditions must be wrapped in an <And> tag")
    if not inner:
        return None
    return inner if len(inner) == 1 else {"And": inner}


def _expiration(given: dict[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    days, date = given.get("Days"), given.get("Date")
    if days is not None and date is not None:
        raise _invalid("cannot have both <Days> and <Date> in <Expiration>")
    if days is None and date is None:
        raise _invalid("<Expiration> must contain either <Days> or <Date>")
    if date is not None and not _is_day(date):
        raise _invalid("Lifecycle expiration date must be in ISO8601 format, at midnight UTC")
    return _given(Days=days, Date=date)


def _is_day(text: str) -> bool:
    """A date, or midnight of one in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return False
    return (moment.hour, moment.minute, moment.second, moment.microsecond) == (0, 0, 0, 0)


def _invalid(reason: str) -> Exception:
    return bad_request(f"Invalid lifecycle configuration: {reason}")
