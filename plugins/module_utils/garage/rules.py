# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CORS and lifecycle rules: their form in options, in the admin API and in diffs, and what is no rule.

The API has the element names of S3's XML. What is refused: ``src/api/s3/cors.rs`` and ``lifecycle.rs`` of Garage, and
what Garage takes although it can have no effect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, TypeVar

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput

Rule = TypeVar("Rule", "CorsRule", "LifecycleRule")

METHODS = ("DELETE", "GET", "HEAD", "POST", "PUT")
# RFC 9110 section 5.6.2; "*" is one of its characters
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
ORIGIN = re.compile(r"[\x21-\x7e]+\Z")
SECONDS_MAX = DAYS_MAX = 2**31 - 1
SIZE_MAX = 2**63 - 1


@dataclass(frozen=True)
class CorsRule:
    """Lists are sorted, because their order means nothing; ``max_age_seconds`` is how long a browser remembers."""

    allowed_origins: tuple[str, ...]
    allowed_methods: tuple[str, ...]
    allowed_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age_seconds: int | None = None
    id: str | None = None


@dataclass(frozen=True)
class LifecycleRule:
    """Sizes in bytes; ``expiration_date`` as YYYY-MM-DD."""

    id: str | None = None
    enabled: bool = True
    prefix: str | None = None
    object_size_greater_than: int | None = None
    object_size_less_than: int | None = None
    expiration_days: int | None = None
    expiration_date: str | None = None
    abort_incomplete_multipart_upload_days: int | None = None


def cors_from_option(option: Mapping[str, Any]) -> CorsRule:
    """A rule of the module's option ``cors_rules``."""
    return CorsRule(
        _sorted(option["allowed_origins"]),
        _sorted(option["allowed_methods"]),
        _sorted(option["allowed_headers"]),
        _sorted(option["expose_headers"]),
        option["max_age_seconds"],
        option["id"],
    )


def lifecycle_from_option(option: Mapping[str, Any]) -> LifecycleRule:
    """A rule of the module's option ``lifecycle_rules``."""
    return LifecycleRule(**{**option, "prefix": option["prefix"] or None})


def cors_from(answer: Mapping[str, Any]) -> CorsRule:
    """A rule of ``corsRules``."""
    return CorsRule(
        _sorted(answer["AllowedOrigin"]),
        _sorted(answer["AllowedMethod"]),
        _sorted(answer.get("AllowedHeader")),
        _sorted(answer.get("ExposeHeader")),
        answer.get("MaxAgeSeconds"),
        answer.get("ID"),
    )


def lifecycle_from(answer: Mapping[str, Any]) -> LifecycleRule:
    """A rule of ``lifecycleRules``; several conditions are inside ``And``, one stands alone."""
    conditions = answer.get("Filter") or {}
    conditions = conditions.get("And") or conditions
    expiration = answer.get("Expiration") or {}
    day = expiration.get("Date")
    return LifecycleRule(
        answer.get("ID"),
        answer["Status"] == "Enabled",
        conditions.get("Prefix") or None,
        conditions.get("ObjectSizeGreaterThan"),
        conditions.get("ObjectSizeLessThan"),
        expiration.get("Days"),
        # midnight UTC, with or without saying so
        None if day is None else str(day)[:10],
        (answer.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation"),
    )


def cors_body(rule: CorsRule) -> dict[str, Any]:
    """*rule* as the API takes it."""
    return _given(
        {
            "ID": rule.id,
            "AllowedOrigin": list(rule.allowed_origins),
            "AllowedMethod": list(rule.allowed_methods),
            "AllowedHeader": list(rule.allowed_headers),
            "ExposeHeader": list(rule.expose_headers),
            "MaxAgeSeconds": rule.max_age_seconds,
        }
    )


def lifecycle_body(rule: LifecycleRule) -> dict[str, Any]:
    """*rule* as the API takes it."""
    conditions = _given(
        {
            "Prefix": rule.prefix,
            "ObjectSizeGreaterThan": rule.object_size_greater_than,
            "ObjectSizeLessThan": rule.object_size_less_than,
        }
    )
    abort = _given({"DaysAfterInitiation": rule.abort_incomplete_multipart_upload_days})
    return _given(
        {
            "ID": rule.id,
            "Status": "Enabled" if rule.enabled else "Disabled",
            "Filter": ({"And": conditions} if len(conditions) > 1 else conditions) or None,
            "Expiration": _given({"Days": rule.expiration_days, "Date": rule.expiration_date}) or None,
            "AbortIncompleteMultipartUpload": abort or None,
        }
    )


def show_rule(rule: CorsRule | LifecycleRule) -> dict[str, Any]:
    """*rule* with the names of the options, without what is not set."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in _given(asdict(rule)).items()}


def check_cors(rules: Sequence[CorsRule], item: str) -> None:
    """:raises InvalidInput: one of *rules* is refused."""
    _check_rules(rules, f"{item}, cors_rules", _check_cors_rule)


def check_lifecycle(rules: Sequence[LifecycleRule], item: str) -> None:
    """:raises InvalidInput: one of *rules* is refused."""
    _check_rules(rules, f"{item}, lifecycle_rules", _check_lifecycle_rule)


def _check_rules(rules: Sequence[Rule], where: str, check: Callable[[Rule, str], None]) -> None:
    named = [rule.id for rule in rules if rule.id is not None]
    for number, rule in enumerate(rules):
        if rule.id is not None and (not rule.id or len(rule.id) > 255 or named.count(rule.id) > 1):
            raise InvalidInput(
                f"the id {rule.id[:40]!r} is empty, too long or given twice",
                where=f"{where}[{number}].id",
                hint="Use different ids of at most 255 characters, or none",
            )
        check(rule, f"{where}[{number}]")


def _check_cors_rule(rule: CorsRule, where: str) -> None:
    for name in ("allowed_origins", "allowed_methods"):
        if not getattr(rule, name):
            raise InvalidInput(f"a CORS rule needs {name}", where=f"{where}.{name}", hint="Name at least one")
    for origin in rule.allowed_origins:
        if not ORIGIN.match(origin):
            raise InvalidInput(
                f"{origin!r} is no origin",
                where=f"{where}.allowed_origins",
                hint="Write https://HOST, or * for all; other characters than ASCII in their encoded form",
            )
    for method in rule.allowed_methods:
        if method not in METHODS:
            raise InvalidInput(
                f"{method!r} is no method of S3", where=f"{where}.allowed_methods", hint=f"Use {', '.join(METHODS)}"
            )
    for name in ("allowed_headers", "expose_headers"):
        for header in getattr(rule, name):
            if not HEADER_NAME.match(header):
                raise InvalidInput(
                    f"{header!r} is no header name", where=f"{where}.{name}", hint="Use names as Content-Type, or *"
                )
    _check_number(rule.max_age_seconds, 0, SECONDS_MAX, f"{where}.max_age_seconds")


def _check_lifecycle_rule(rule: LifecycleRule, where: str) -> None:
    if rule.expiration_days is not None and rule.expiration_date is not None:
        raise InvalidInput("days and a date exclude each other", where=f"{where}.expiration_date", hint="Give one")
    if (rule.expiration_days, rule.expiration_date, rule.abort_incomplete_multipart_upload_days) == (None, None, None):
        raise InvalidInput(
            "the rule does nothing: it has no days",
            where=where,
            hint="Give expiration_days, expiration_date or abort_incomplete_multipart_upload_days",
        )
    for name in ("expiration_days", "abort_incomplete_multipart_upload_days"):
        _check_number(getattr(rule, name), 1, DAYS_MAX, f"{where}.{name}")
    for name in ("object_size_greater_than", "object_size_less_than"):
        _check_number(getattr(rule, name), 0, SIZE_MAX, f"{where}.{name}")
    if rule.expiration_date is not None and not _is_date(rule.expiration_date):
        raise InvalidInput(
            f"{rule.expiration_date!r} is no date", where=f"{where}.expiration_date", hint="Write YYYY-MM-DD"
        )


def _check_number(value: int | None, low: int, high: int, where: str) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidInput(f"{value} is not between {low} and {high}", where=where, hint="Correct it or leave it out")


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _sorted(values: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(sorted({str(value) for value in values or ()}))


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != ()}
