# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decisions about one bucket: how it shall be, what differs, what is refused, and which requests lead to the goal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    InvalidInput,
    NotFound,
    NotOwned,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.checks import check_bucket
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    Actual,
    ActualBucket,
    BucketRow,
    Desired,
    DesiredBucket,
    Grant,
    Permission,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.rules import (
    CorsRule,
    LifecycleRule,
    cors_body,
    lifecycle_body,
    show_rule,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Change

NEW_BUCKET = ActualBucket(id="")
NOTHING = Permission()


# access key id and alias; the id is empty for a global alias
Name: TypeAlias = "tuple[str, str]"


def plan_bucket(
    wanted: DesiredBucket, actual: ActualBucket | None, key_ids: Mapping[str, str]
) -> Change[Desired, Actual]:
    """:param key_ids: access key ids by name of the keys that this run leaves in place.

    :raises HostingError: the bucket is refused.
    """
    check_bucket(wanted)
    if not wanted.present:
        return _plan_deletion(wanted, actual)
    if actual is None and wanted.id is not None:
        raise NotFound(
            f"there is no bucket with the id {wanted.id}",
            where=wanted.item,
            hint="Somebody deleted it; leave the id out to make a new, empty bucket",
        )
    resolved = replace(wanted, key_ids=_key_ids(wanted, key_ids))
    after = goal(resolved, actual or NEW_BUCKET)
    if actual is None:
        return Change(wanted.item, "create", {}, show(after), resolved)
    _check_rules_are_told(wanted, actual)
    if show(actual) == show(after):
        return Change(wanted.item, "unchanged", show(actual), show(after), resolved, actual)
    _check_owner(wanted, actual)
    return Change(wanted.item, "update", show(actual), show(after), resolved, actual)


def with_grants(bucket: ActualBucket, more: Sequence[Grant]) -> ActualBucket:
    """*bucket* with those of *more* whose keys it does not list: Garage 2.3 lists only keys that have a permission."""
    listed = {grant.key_id for grant in bucket.grants}
    grants = [*bucket.grants, *(grant for grant in more if grant.key_id not in listed)]
    return replace(bucket, grants=tuple(sorted(grants, key=lambda grant: grant.key_id)))


def named_by(row: BucketRow, key_names: Mapping[str, str]) -> list[Grant]:
    """The keys that have names for a bucket, without their permissions; *key_names* are by access key id."""
    aliases: dict[str, list[str]] = {}
    for key_id, alias in row.local_aliases:
        aliases.setdefault(key_id, []).append(alias)
    return [
        Grant(key_id, key_names[key_id], local_aliases=tuple(sorted(names)))
        for key_id, names in aliases.items()
        if key_id in key_names
    ]


def _check_rules_are_told(wanted: DesiredBucket, actual: ActualBucket) -> None:
    """Rules that are not told may have been set through S3, so that there are none cannot be known."""
    for name in ("cors_rules", "lifecycle_rules"):
        if getattr(actual, name) is None and getattr(wanted, name) == ():
            raise BackendError(
                "Garage does not tell which rules the bucket has",
                where=f"{wanted.item}, {name}",
                hint="It needs Garage 2.3; leave the option out",
            )


def _plan_deletion(wanted: DesiredBucket, actual: ActualBucket | None) -> Change[Desired, Actual]:
    if actual is None:
        return Change(wanted.item, "unchanged", desired=wanted)
    _check_owner(wanted, actual)
    if actual.aliases and wanted.name not in actual.aliases:
        raise NotOwned(
            f"the bucket of this id has other names: {', '.join(actual.aliases)}",
            where=f"{wanted.item}, id",
            hint="Give the name together with its own id",
        )
    check_unused_by_others(wanted, actual)
    if wanted.id is None and not any(grant.owned for grant in actual.grants):
        raise NotOwned(
            "no key of ours has anything to do with the bucket, so it may be somebody else's",
            where=wanted.item,
            hint=f"Give its id {actual.id} if it is yours",
        )
    if actual.objects and wanted.export_dir is None:
        raise InvalidInput(
            f"the bucket holds {actual.objects} objects and is not deleted",
            where=wanted.item,
            hint="Give export_dir to have them exported and then deleted, or move them first",
        )
    return Change(wanted.item, "delete", {**show(actual), "objects": actual.objects}, {}, wanted, actual)


def check_unused_by_others(wanted: DesiredBucket, actual: ActualBucket) -> None:
    """:raises NotOwned: the bucket goes by its name alone, and keys of others may use it."""
    users = [grant.key_name for grant in actual.grants if not grant.owned and grant.permission.flags()]
    if users and wanted.id is None:
        raise NotOwned(
            f"keys of others use the bucket ({', '.join(map(repr, sorted(users)[:3]))})",
            where=wanted.item,
            hint=f"Take their permissions away first, or give its id {actual.id} to delete it in spite of them",
        )


def _check_owner(wanted: DesiredBucket, actual: ActualBucket) -> None:
    """Found by name only, a bucket that others use and we do not is theirs."""
    foreign = [grant.key_name for grant in actual.grants if not grant.owned and grant.permission.flags()]
    if wanted.id is None and foreign and not any(grant.owned for grant in actual.grants):
        raise NotOwned(
            f"the bucket is used by keys of others ({', '.join(map(repr, sorted(foreign)[:3]))}) and by none of ours",
            where=wanted.item,
            hint=f"Choose another name, or give its id {actual.id} to take it over",
        )


def _key_ids(wanted: DesiredBucket, key_ids: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    listed = [("permissions", name) for name, _permission in wanted.permissions or ()]
    listed += [("local_aliases", name) for name, _alias in wanted.local_aliases or ()]
    for option, name in listed:
        if name not in key_ids:
            raise InvalidInput(
                "the key does not exist, is refused, is to be deleted, or shares its name with another",
                where=f"{wanted.item}, {option} of {name!r}",
                hint="List it under keys, or make it first",
            )
    return tuple(sorted({(name, key_ids[name]) for _option, name in listed}))


def goal(wanted: DesiredBucket, actual: ActualBucket) -> ActualBucket:
    """The bucket as it shall be: what is not wanted in so many words, and what is not ours, stays as it is."""
    further = actual.aliases if wanted.aliases is None else wanted.aliases
    return replace(
        actual,
        aliases=tuple(sorted({wanted.name, *further})),
        quotas=actual.quotas if wanted.quotas is None else wanted.quotas,
        website=actual.website if wanted.website is None else wanted.website or None,
        grants=_grants(wanted, actual),
        cors_rules=actual.cors_rules if wanted.cors_rules is None else wanted.cors_rules,
        lifecycle_rules=actual.lifecycle_rules if wanted.lifecycle_rules is None else wanted.lifecycle_rules,
    )


def _grants(wanted: DesiredBucket, actual: ActualBucket) -> tuple[Grant, ...]:
    ours = {grant.key_id: grant for grant in actual.grants if grant.owned}
    ours = {**{key_id: Grant(key_id, name) for name, key_id in wanted.key_ids}, **ours}
    names = {key_id: name for name, key_id in wanted.key_ids}
    if wanted.permissions is not None:
        flags = dict(wanted.permissions)
        ours = {
            key_id: replace(grant, permission=flags.get(names.get(key_id, ""), NOTHING))
            for key_id, grant in ours.items()
        }
    if wanted.local_aliases is not None:
        ours = {
            key_id: replace(
                grant,
                local_aliases=tuple(sorted(alias for name, alias in wanted.local_aliases if names.get(key_id) == name)),
            )
            for key_id, grant in ours.items()
        }
    grants = [*(grant for grant in actual.grants if not grant.owned), *ours.values()]
    return tuple(sorted(grants, key=lambda grant: grant.key_id))


def show(bucket: ActualBucket) -> dict[str, Any]:
    """What diff mode shows of a bucket, and what decides whether it differs: without keys of others."""
    ours = {f"{grant.key_name} ({grant.key_id})": grant for grant in bucket.grants if grant.owned}
    return {
        "aliases": list(bucket.aliases),
        "local_aliases": {name: list(grant.local_aliases) for name, grant in ours.items() if grant.local_aliases},
        "quotas": {"max_size": bucket.quotas.max_size, "max_objects": bucket.quotas.max_objects},
        "website": bucket.website
        and {"index_document": bucket.website.index_document, "error_document": bucket.website.error_document},
        "cors_rules": _show_rules(bucket.cors_rules),
        "lifecycle_rules": _show_rules(bucket.lifecycle_rules),
        "permissions": {
            name: sorted(grant.permission.flags()) for name, grant in ours.items() if grant.permission.flags()
        },
    }


def _show_rules(rules: Sequence[CorsRule | LifecycleRule] | None) -> list[dict[str, Any]] | None:
    return None if rules is None else [show_rule(rule) for rule in rules]


def requests_to(before: ActualBucket, after: ActualBucket) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """The requests (endpoint, query, body) that lead from *before* to *after*.

    Takes rights before it gives any, and gives names before it takes any: a bucket's last name cannot be taken.
    """
    old, new = names_of(before), names_of(after)
    for key_id, alias in sorted(new - old):
        yield "AddBucketAlias", {}, {"bucketId": before.id, **_alias_body(key_id, alias)}
    update = _update(before, after)
    if update:
        yield "UpdateBucket", {"id": before.id}, update
    had = {grant.key_id: grant.permission.flags() for grant in before.grants}
    gets = {grant.key_id: grant.permission.flags() for grant in after.grants}
    for endpoint, minuend, subtrahend in (("DenyBucketKey", had, gets), ("AllowBucketKey", gets, had)):
        for key_id in sorted(minuend):
            flags = minuend[key_id] - subtrahend.get(key_id, NOTHING.flags())
            if flags:
                permissions = dict.fromkeys(sorted(flags), True)
                yield endpoint, {}, {"bucketId": before.id, "accessKeyId": key_id, "permissions": permissions}
    for key_id, alias in sorted(old - new):
        yield "RemoveBucketAlias", {}, {"bucketId": before.id, **_alias_body(key_id, alias)}


def _update(before: ActualBucket, after: ActualBucket) -> dict[str, Any]:
    """The body of UpdateBucket: fields that are left out stay as they are."""
    update: dict[str, Any] = {}
    if after.quotas != before.quotas:
        # both every time: the one that is left out would become unlimited
        update["quotas"] = {"maxSize": after.quotas.max_size, "maxObjects": after.quotas.max_objects}
    if after.website != before.website:
        update["websiteAccess"] = {"enabled": False}
        if after.website:
            documents = {"indexDocument": after.website.index_document, "errorDocument": after.website.error_document}
            update["websiteAccess"] = {"enabled": True, **documents}
    if after.cors_rules is not None and after.cors_rules != before.cors_rules:
        update["corsRules"] = [cors_body(rule) for rule in after.cors_rules]
    if after.lifecycle_rules is not None and after.lifecycle_rules != before.lifecycle_rules:
        update["lifecycleRules"] = [lifecycle_body(rule) for rule in after.lifecycle_rules]
    return update


def names_of(bucket: ActualBucket) -> set[Name]:
    """All names of the bucket but those in the namespaces of keys of others."""
    local = {(grant.key_id, alias) for grant in bucket.grants if grant.owned for alias in grant.local_aliases}
    return local | {("", alias) for alias in bucket.aliases}


def _alias_body(key_id: str, alias: str) -> dict[str, str]:
    return {"localAlias": alias, "accessKeyId": key_id} if key_id else {"globalAlias": alias}
