# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Typed state of keys and buckets: what is wanted, and what Garage shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, TypeVar

from ansible_collections.fediversity.hosting.plugins.module_utils.garage.files import SecretFile
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.rules import (
    CorsRule,
    LifecycleRule,
    cors_from,
    lifecycle_from,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.names import OWNER_TAG

Rule = TypeVar("Rule")

# prefix of the names of keys and tokens that are ours; everything else belongs to somebody else
OWNED = f"{OWNER_TAG}/"
# an expiration that never comes
NEVER = "never"
# a wish for both an instant and none
CONTRADICTION = "an instant and never"
# RFC 3339 section 5.6; Garage keeps milliseconds
INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)\Z")


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
    """A key; None for ``create_bucket`` or ``expiration``: leave it as it is.

    ``access_key_id`` and ``secret`` come together, to be imported; without them Garage makes the key, and the secret
    goes to ``secret_file``. ``expiration`` is :data:`NEVER` or what :func:`instant` returns.
    """

    name: str
    access_key_id: str | None = None
    secret: str | None = field(default=None, repr=False)
    present: bool = True
    secret_file: str | None = None
    create_bucket: bool | None = None
    expiration: str | None = None

    @property
    def item(self) -> str:
        return key_item(self.name)


@dataclass(frozen=True)
class DesiredBucket:
    """``name`` is a global alias. None for any setting: leave it as it is.

    ``website`` is False to switch it off. ``permissions`` are (key name, permission), ``local_aliases`` (key name,
    alias); ``key_ids`` are (key name, access key id) of these names, which the plan finds out. ``aliases`` are the
    global aliases beside ``name``. ``export_dir`` is where the objects of a bucket that goes are kept.
    """

    name: str
    id: str | None = None
    quotas: Quotas | None = None
    website: Website | Literal[False] | None = None
    permissions: tuple[tuple[str, Permission], ...] | None = None
    key_ids: tuple[tuple[str, str], ...] = ()
    present: bool = True
    aliases: tuple[str, ...] | None = None
    local_aliases: tuple[tuple[str, str], ...] | None = None
    cors_rules: tuple[CorsRule, ...] | None = None
    lifecycle_rules: tuple[LifecycleRule, ...] | None = None
    cleanup_incomplete_uploads: int | None = None
    export_dir: str | None = None

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
    expiration: str = NEVER


@dataclass(frozen=True)
class KeyInfo:
    """What only GetKeyInfo shows."""

    create_bucket: bool
    secret: str | None = field(repr=False)


@dataclass(frozen=True)
class ActualKey:
    """Every key that has the name of the item or the id that the item wants: names are not unique.

    ``info`` and ``file`` are there only where an option of the item needs them.
    """

    matches: tuple[KeyRow, ...]
    info: KeyInfo | None = None
    file: SecretFile | None = None


@dataclass(frozen=True)
class Grant:
    """A key that Garage lists with a bucket (its permission may be empty), and the bucket's names for this key."""

    key_id: str
    key_name: str
    permission: Permission = Permission()
    local_aliases: tuple[str, ...] = ()

    @property
    def owned(self) -> bool:
        return is_owned(self.key_name)


@dataclass(frozen=True)
class ActualBucket:
    """``website`` is None when there is no website access; ``unfinished`` uploads are not counted in ``objects``.

    Rules are None when Garage does not tell.
    """

    id: str
    aliases: tuple[str, ...] = ()
    quotas: Quotas = Quotas()
    website: Website | None = None
    grants: tuple[Grant, ...] = ()
    objects: int = 0
    cors_rules: tuple[CorsRule, ...] | None = ()
    lifecycle_rules: tuple[LifecycleRule, ...] | None = ()
    unfinished: int = 0


Actual: TypeAlias = "ActualKey | ActualBucket"


@dataclass(frozen=True)
class BucketRow:
    """One bucket as ListBuckets shows it; ``local_aliases`` are (access key id, alias)."""

    id: str
    created: str
    aliases: tuple[str, ...]
    local_aliases: tuple[tuple[str, str], ...]


def is_owned(name: str) -> bool:
    """Whether a key or token of this name is ours."""
    return name.startswith(OWNED)


def key_item(name: str) -> str:
    """Name of a key among the items of a run; keys and buckets share one result."""
    return f"key {name}"


def bucket_item(name: str) -> str:
    """Name of a bucket among the items of a run."""
    return f"bucket {name}"


def instant(text: str) -> str:
    """An RFC 3339 instant in UTC with milliseconds, so that equal instants are equal texts.

    :raises ValueError: *text* is none.
    """
    if not INSTANT.match(text):
        raise ValueError("no RFC 3339 instant")
    try:
        moment = datetime.fromisoformat(text.upper().replace("Z", "+00:00")).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("an instant before the year 1 or after 9999") from error
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> str:
    """The present instant, as :func:`instant` writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_list(answer: Any) -> list[Any]:
    """:raises TypeError: *answer* is none; an empty object would otherwise pass for an empty list."""
    if not isinstance(answer, list):
        raise TypeError("no list")
    return answer


def expiration_from(answer: Mapping[str, Any]) -> str:
    """The expiration of a key or token in an answer."""
    found = answer.get("expiration")
    return NEVER if found is None else instant(found)


def key_rows(answer: Sequence[Mapping[str, Any]]) -> tuple[KeyRow, ...]:
    """The keys of a ListKeys answer, sorted by id."""
    rows = [KeyRow(row["id"], row["name"], row["expired"], expiration_from(row)) for row in as_list(answer)]
    return tuple(sorted(rows, key=lambda row: row.id))


def key_info(answer: Mapping[str, Any]) -> KeyInfo:
    """The rest of a GetKeyInfo or CreateKey answer."""
    return KeyInfo(bool(answer["permissions"].get("createBucket")), answer.get("secretAccessKey"))


def bucket_rows(answer: Sequence[Mapping[str, Any]]) -> tuple[BucketRow, ...]:
    """The buckets of a ListBuckets answer, sorted by id."""
    rows = [
        BucketRow(
            row["id"],
            # Garage 2.0 does not tell
            str(row.get("created", "")),
            tuple(row["globalAliases"]),
            tuple((local["accessKeyId"], local["alias"]) for local in row["localAliases"]),
        )
        for row in as_list(answer)
    ]
    return tuple(sorted(rows, key=lambda row: row.id))


def bucket_from(answer: Mapping[str, Any]) -> ActualBucket:
    """The bucket of a GetBucketInfo answer (CreateBucket, UpdateBucket and others answer the same)."""
    website = answer.get("websiteConfig")
    grants = [
        Grant(
            key["accessKeyId"],
            key["name"],
            Permission(**{flag: bool(key["permissions"].get(flag)) for flag in ("read", "write", "owner")}),
            tuple(sorted(key.get("bucketLocalAliases", ()))),
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
        cors_rules=_rules(answer, "corsRules", cors_from),
        lifecycle_rules=_rules(answer, "lifecycleRules", lifecycle_from),
        unfinished=answer.get("unfinishedUploads", 0),
    )


def _rules(answer: Mapping[str, Any], name: str, parse: Callable[[Mapping[str, Any]], Rule]) -> tuple[Rule, ...] | None:
    if name not in answer and not _tells_rules(answer):
        return None
    return tuple(parse(rule) for rule in answer.get(name) or ())


def _tells_rules(answer: Mapping[str, Any]) -> bool:
    """Whether rules that are not in *answer* are not there: Garage 2.3 leaves out all that is not set.

    Older ones, which know no rules here, always have ``websiteConfig``, and never routing rules in it.
    """
    website = answer.get("websiteConfig")
    return "websiteConfig" not in answer or (website is not None and "routingRules" in website)
