# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decisions about keys and buckets: what differs, what is refused, and which requests lead to the goal. No effects."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    Exists,
    HostingError,
    InvalidInput,
    NotFound,
    NotOwned,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    OWNED,
    Actual,
    ActualBucket,
    ActualKey,
    Desired,
    DesiredBucket,
    DesiredKey,
    Grant,
    Permission,
    Quotas,
    is_owned,
    key_item,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import (
    Change,
    Plan,
    Refusal,
)

# Garage 2.3; older servers take only the form that they make themselves: GK and 24, or 64, hex digits
ACCESS_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{8,}\Z")
SECRET_ACCESS_KEY = re.compile(r"[\x21-\x7e]{16,}\Z")
BUCKET_ID = re.compile(r"[0-9a-f]{64}\Z")
# S3 bucket naming rules (src/model/bucket_alias_table.rs)
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
QUOTA_MAX = 2**64 - 1

NEW_BUCKET = ActualBucket(id="", aliases=(), quotas=Quotas(), website=None, grants=(), objects=0)


def make_plan(desired: Sequence[Desired], actual: Mapping[str, Actual]) -> Plan[Desired, Actual]:
    """Keys first, then buckets, then the keys that go; what cannot be done is refused by itself."""
    items: dict[str, list[Desired]] = {}
    for wanted in desired:
        items.setdefault(wanted.item, []).append(wanted)
    changes: list[Change[Desired, Actual]] = []
    refusals: list[Refusal] = []
    key_ids = {
        found.matches[0].name: found.matches[0].id
        for item, found in actual.items()
        if isinstance(found, ActualKey) and len(found.matches) == 1 and item == key_item(found.matches[0].name)
    }
    # keys before buckets: the sort is stable, and False comes before True
    for item in sorted(items, key=lambda name: isinstance(items[name][0], DesiredBucket)):
        try:
            change = _plan_item(items[item], actual.get(item), key_ids)
        except HostingError as error:
            refusals.append(Refusal(item, error))
            change = None
        wanted = items[item][0]
        if change is not None:
            changes.append(change)
        if isinstance(wanted, DesiredKey):
            key_ids.pop(wanted.name, None)
            if change is not None and wanted.present and wanted.access_key_id:
                key_ids[wanted.name] = wanted.access_key_id
    return Plan(tuple(sorted(changes, key=_is_key_deletion)), tuple(refusals))


def _is_key_deletion(change: Change[Desired, Actual]) -> bool:
    return change.action == "delete" and isinstance(change.desired, DesiredKey)


def _plan_item(wanted: Sequence[Desired], actual: Actual | None, key_ids: Mapping[str, str]) -> Change[Desired, Actual]:
    first = wanted[0]
    if len(wanted) > 1:
        raise InvalidInput(f"is given {len(wanted)} times", where=first.item, hint="Give it once")
    if isinstance(first, DesiredKey):
        return plan_key(first, actual if isinstance(actual, ActualKey) else None)
    return plan_bucket(first, actual if isinstance(actual, ActualBucket) else None, key_ids)


def plan_key(wanted: DesiredKey, actual: ActualKey | None) -> Change[Desired, Actual]:
    """:raises HostingError: the key is refused."""
    _check_key(wanted)
    rows = actual.matches if actual else ()
    if not wanted.present and wanted.access_key_id is not None:
        # known by its id, so that one of two keys of the same name can be deleted, and never the wrong one
        rows = tuple(row for row in rows if row.id == wanted.access_key_id)
    for match in rows:
        if match.id == wanted.access_key_id and match.name != wanted.name:
            raise NotOwned(
                f"the access key id {match.id} belongs to the key {match.name!r}",
                where=wanted.item,
                hint="Use another access key id",
            )
    if len(rows) > 1:
        raise Exists(
            f"{len(rows)} keys have this name: {', '.join(match.id for match in rows)}",
            where=wanted.item,
            hint="Delete all but one of them (access_key_id with state absent)",
        )
    row = rows[0] if rows else None
    if not wanted.present:
        if row is None:
            return Change(wanted.item, "unchanged", desired=wanted)
        return Change(wanted.item, "delete", _show_key(row.id, row.expired), {}, wanted, actual)
    key_id = str(wanted.access_key_id)
    after = _show_key(key_id, False)
    if row is None:
        return Change(wanted.item, "create", {}, after, wanted)
    if row.id != key_id:
        raise Exists(
            f"a key of this name has the access key id {row.id}, not {key_id}",
            where=wanted.item,
            hint="A secret cannot be changed: delete the old key first (its access_key_id with state absent)",
        )
    before = _show_key(row.id, row.expired)
    return Change(wanted.item, "update" if row.expired else "unchanged", before, after, wanted, actual)


def _show_key(key_id: str, expired: bool) -> dict[str, Any]:
    return {"access_key_id": key_id, "expired": expired}


def _check_key(wanted: DesiredKey) -> None:
    if not is_owned(wanted.name) or wanted.name == OWNED:
        raise InvalidInput(
            "the name does not begin with our owner mark", where=wanted.item, hint=f"Name it {OWNED}SOMETHING"
        )
    if not wanted.present:
        return
    if not wanted.access_key_id or not wanted.secret:
        raise InvalidInput(
            "access_key_id and secret_access_key are both needed",
            where=wanted.item,
            hint="Make and store them first, so that no crash can lose them: GK and 24, and 64, random hex digits",
        )
    if not ACCESS_KEY_ID.match(wanted.access_key_id):
        raise InvalidInput(
            "the access key id is malformed",
            where=f"{wanted.item}, access_key_id",
            hint="Use GK and 24 random hex digits",
        )
    if not SECRET_ACCESS_KEY.match(wanted.secret):
        raise InvalidInput(
            "the secret is malformed", where=f"{wanted.item}, secret_access_key", hint="Use 64 random hex digits"
        )


def plan_bucket(
    wanted: DesiredBucket, actual: ActualBucket | None, key_ids: Mapping[str, str]
) -> Change[Desired, Actual]:
    """:param key_ids: access key ids by name of the keys that this run leaves in place.

    :raises HostingError: the bucket is refused.
    """
    _check_bucket(wanted)
    if not wanted.present:
        return _plan_deletion(wanted, actual)
    if actual is None and wanted.id is not None:
        raise NotFound(
            f"there is no bucket with the id {wanted.id}",
            where=wanted.item,
            hint="Somebody deleted it; leave the id out to make a new, empty bucket",
        )
    resolved = replace(wanted, key_ids=_key_ids(wanted, key_ids))
    if actual is None:
        return Change(wanted.item, "create", {}, show(goal(resolved, NEW_BUCKET)), resolved)
    before, after = show(actual), show(goal(resolved, actual))
    if before == after:
        return Change(wanted.item, "unchanged", before, after, resolved, actual)
    _check_owner(wanted, actual)
    return Change(wanted.item, "update", before, after, resolved, actual)


def _plan_deletion(wanted: DesiredBucket, actual: ActualBucket | None) -> Change[Desired, Actual]:
    if actual is None:
        return Change(wanted.item, "unchanged", desired=wanted)
    _check_owner(wanted, actual)
    if actual.objects:
        raise InvalidInput(
            f"the bucket holds {actual.objects} objects and is not deleted",
            where=wanted.item,
            hint="Move or delete the objects first",
        )
    return Change(wanted.item, "delete", show(actual), {}, wanted, actual)


def _check_bucket(wanted: DesiredBucket) -> None:
    if not _is_bucket_name(wanted.name):
        raise InvalidInput(
            "is no valid bucket name",
            where=wanted.item,
            hint="Use 3 to 63 lower-case letters, digits, dots and hyphens, no IP address, not ending in -s3alias",
        )
    if wanted.id is not None and not BUCKET_ID.match(wanted.id):
        raise InvalidInput("a bucket id has 64 lower-case hex digits", where=f"{wanted.item}, id", hint="Correct it")
    for name in ("max_size", "max_objects"):
        limit = getattr(wanted.quotas, name, None)
        if limit is not None and not 0 <= limit <= QUOTA_MAX:
            raise InvalidInput(
                f"{limit} is no quota", where=f"{wanted.item}, quotas.{name}", hint="Leave it out for no limit"
            )
    if wanted.website and not wanted.website.index_document:
        raise InvalidInput("a website needs an index document", where=f"{wanted.item}, website", hint="Name one")


def _is_bucket_name(name: str) -> bool:
    if not BUCKET_NAME.match(name) or name.endswith("-s3alias"):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return True
    return False


def _check_owner(wanted: DesiredBucket, actual: ActualBucket) -> None:
    """Found by name only, a bucket that others use and we do not is theirs."""
    foreign = [grant.key_name for grant in actual.grants if not grant.owned and grant.permission.flags()]
    if wanted.id is None and foreign and not any(grant.owned for grant in actual.grants):
        raise NotOwned(
            f"the bucket is used by keys of others ({', '.join(map(repr, sorted(foreign)[:3]))}) and by none of ours",
            where=wanted.item,
            hint=f"Choose another name, or give its id {actual.id} to take it over",
        )


def _key_ids(wanted: DesiredBucket, key_ids: Mapping[str, str]) -> tuple[str, ...]:
    names = [name for name, _permission in wanted.permissions or ()]
    for name in names:
        where = f"{wanted.item}, permissions of {name!r}"
        if names.count(name) > 1:
            raise InvalidInput("are given twice", where=where, hint="Give them once")
        if not is_owned(name):
            raise NotOwned(
                "the key is not ours", where=where, hint=f"Only keys whose name begins with {OWNED} are managed"
            )
        if name not in key_ids:
            raise InvalidInput(
                "the key does not exist, is refused or is to be deleted", where=where, hint="List it under keys"
            )
    return tuple(key_ids[name] for name in names)


def goal(wanted: DesiredBucket, actual: ActualBucket) -> ActualBucket:
    """The bucket as it shall be: what is not wanted in so many words, and what is not ours, stays as it is."""
    grants = actual.grants
    if wanted.permissions is not None:
        foreign = tuple(grant for grant in actual.grants if not grant.owned)
        grants = foreign + tuple(
            Grant(key_id, name, permission)
            for key_id, (name, permission) in zip(wanted.key_ids, wanted.permissions, strict=True)
        )
    return replace(
        actual,
        aliases=tuple(sorted({*actual.aliases, wanted.name})),
        quotas=actual.quotas if wanted.quotas is None else wanted.quotas,
        website=actual.website if wanted.website is None else wanted.website or None,
        grants=grants,
    )


def show(bucket: ActualBucket) -> dict[str, Any]:
    """What diff mode shows of a bucket, and what decides whether it differs: without keys of others."""
    return {
        "aliases": list(bucket.aliases),
        "quotas": {"max_size": bucket.quotas.max_size, "max_objects": bucket.quotas.max_objects},
        "website": bucket.website
        and {"index_document": bucket.website.index_document, "error_document": bucket.website.error_document},
        "permissions": {
            f"{grant.key_name} ({grant.key_id})": sorted(grant.permission.flags())
            for grant in bucket.grants
            if grant.owned and grant.permission.flags()
        },
    }


def requests_to(before: ActualBucket, after: ActualBucket) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """The requests (endpoint, query, body) that lead from *before* to *after*: takes rights before it gives any."""
    for alias in after.aliases:
        if alias not in before.aliases:
            yield "AddBucketAlias", {}, {"bucketId": before.id, "globalAlias": alias}
    update: dict[str, Any] = {}
    if after.quotas != before.quotas:
        # both every time: the one that is left out would become unlimited
        update["quotas"] = {"maxSize": after.quotas.max_size, "maxObjects": after.quotas.max_objects}
    if after.website != before.website:
        update["websiteAccess"] = {"enabled": False}
        if after.website:
            documents = {"indexDocument": after.website.index_document, "errorDocument": after.website.error_document}
            update["websiteAccess"] = {"enabled": True, **documents}
    if update:
        yield "UpdateBucket", {"id": before.id}, update
    had = {grant.key_id: grant.permission.flags() for grant in before.grants}
    gets = {grant.key_id: grant.permission.flags() for grant in after.grants}
    nothing = Permission().flags()
    for endpoint, minuend, subtrahend in (("DenyBucketKey", had, gets), ("AllowBucketKey", gets, had)):
        for key_id in sorted(minuend):
            flags = minuend[key_id] - subtrahend.get(key_id, nothing)
            if flags:
                permissions = dict.fromkeys(sorted(flags), True)
                yield endpoint, {}, {"bucketId": before.id, "accessKeyId": key_id, "permissions": permissions}
