# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is refused of a key or bucket whatever the server has: malformed names, ids, secrets and numbers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput, NotOwned
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    CONTRADICTION,
    NEVER,
    OWNED,
    DesiredBucket,
    DesiredKey,
    instant,
    is_owned,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.rules import check_cors, check_lifecycle

# Garage 2.3; older servers take only the form that they make themselves: GK and 24, or 64, hex digits
ACCESS_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{8,}\Z")
SECRET_ACCESS_KEY = re.compile(r"[\x21-\x7e]{16,}\Z")
BUCKET_ID = re.compile(r"[0-9a-f]{64}\Z")
# S3 bucket naming rules (src/model/bucket_alias_table.rs)
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
UNSIGNED_MAX = 2**64 - 1
# names of the keys that drain a bucket; they are deleted wherever they are found
EXPORT_KEY = f"{OWNED}export-"


def export_key_name(bucket: str) -> str:
    """Name of the temporary key that exports and drains *bucket*."""
    return f"{EXPORT_KEY}{bucket}"


def is_bucket_name(name: str) -> bool:
    """Whether Garage takes *name* as an alias (names with ``xn--`` depend on its configuration)."""
    if not BUCKET_NAME.match(name) or name.endswith("-s3alias"):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return True
    return False


def check_owned(name: str, item: str) -> None:
    """:raises InvalidInput: *name* is not one of a key or token of ours."""
    if not is_owned(name) or name == OWNED:
        raise InvalidInput("the name does not begin with our owner mark", where=item, hint=f"Name it {OWNED}SOMETHING")


def check_expiration(expiration: str | None, where: str) -> None:
    """:raises InvalidInput: *expiration* is not what :func:`instant` returns."""
    if expiration is None or expiration == NEVER:
        return
    if expiration == CONTRADICTION:
        raise InvalidInput("expiration and never_expires exclude each other", where=where, hint="Give one of them")
    try:
        instant(expiration)
    except ValueError:
        raise InvalidInput(
            f"{expiration!r} is no instant", where=where, hint="Write it as 2030-12-31T23:59:59Z"
        ) from None


def check_key(wanted: DesiredKey) -> None:
    """:raises InvalidInput: the key is refused."""
    check_owned(wanted.name, wanted.item)
    if wanted.name.startswith(EXPORT_KEY) and is_bucket_name(wanted.name.removeprefix(EXPORT_KEY)):
        raise InvalidInput("the name is that of a temporary key of an export", where=wanted.item, hint="Use another")
    if not wanted.present:
        return
    if (wanted.access_key_id is None) is not (wanted.secret is None):
        raise InvalidInput(
            "access_key_id and secret_access_key are both needed",
            where=wanted.item,
            hint="Make and store them first, so that no crash can lose them: GK and 24, and 64, random hex digits",
        )
    if wanted.access_key_id is not None and not ACCESS_KEY_ID.match(wanted.access_key_id):
        raise InvalidInput(
            "the access key id is malformed",
            where=f"{wanted.item}, access_key_id",
            hint="Use GK and 24 random hex digits",
        )
    if wanted.secret is not None and not SECRET_ACCESS_KEY.match(wanted.secret):
        raise InvalidInput(
            "the secret is malformed", where=f"{wanted.item}, secret_access_key", hint="Use 64 random hex digits"
        )
    check_expiration(wanted.expiration, f"{wanted.item}, expiration")


def check_bucket(wanted: DesiredBucket) -> None:
    """:raises HostingError: the bucket is refused."""
    _check_bucket_name(wanted.name, wanted.item)
    if wanted.id is not None and not BUCKET_ID.match(wanted.id):
        raise InvalidInput("a bucket id has 64 lower-case hex digits", where=f"{wanted.item}, id", hint="Correct it")
    if not wanted.present:
        return
    if wanted.export_dir is not None:
        raise InvalidInput(
            "only a bucket that goes is exported", where=f"{wanted.item}, export_dir", hint="Leave it out"
        )
    _check_names(wanted)
    for name in ("max_size", "max_objects"):
        _check_unsigned(getattr(wanted.quotas, name, None), f"{wanted.item}, quotas.{name}", "is no quota")
    _check_unsigned(
        wanted.cleanup_incomplete_uploads, f"{wanted.item}, cleanup_incomplete_uploads", "is no number of seconds"
    )
    if wanted.website and not wanted.website.index_document:
        raise InvalidInput(
            "a website needs an index document", where=f"{wanted.item}, website.index_document", hint="Name one"
        )
    check_cors(wanted.cors_rules or (), wanted.item)
    check_lifecycle(wanted.lifecycle_rules or (), wanted.item)


def _check_names(wanted: DesiredBucket) -> None:
    for alias in wanted.aliases or ():
        _check_bucket_name(alias, f"{wanted.item}, aliases")
    _check_once((wanted.name, *(wanted.aliases or ())), f"{wanted.item}, aliases")
    for key_name, alias in wanted.local_aliases or ():
        _check_bucket_name(alias, f"{wanted.item}, local_aliases of {key_name!r}")
    _check_once(wanted.local_aliases or (), f"{wanted.item}, local_aliases")
    _check_once([name for name, _permission in wanted.permissions or ()], f"{wanted.item}, permissions")
    for option, names in (
        ("permissions", [name for name, _permission in wanted.permissions or ()]),
        ("local_aliases", [name for name, _alias in wanted.local_aliases or ()]),
    ):
        for name in names:
            if not is_owned(name):
                raise NotOwned(
                    "the key is not ours",
                    where=f"{wanted.item}, {option} of {name!r}",
                    hint=f"Only keys whose name begins with {OWNED} are managed",
                )


def _check_bucket_name(name: str, where: str) -> None:
    if not is_bucket_name(name):
        raise InvalidInput(
            f"{name!r} is no valid bucket name",
            where=where,
            hint="Use 3 to 63 lower-case letters, digits, dots and hyphens, no IP address, not ending in -s3alias",
        )


def _check_once(values: Sequence[object], where: str) -> None:
    for value in _repeated(values):
        shown = value if isinstance(value, str) else ", ".join(map(str, value)) if isinstance(value, tuple) else value
        raise InvalidInput(f"{shown!r} is given twice", where=where, hint="Give it once")


def _repeated(values: Sequence[object]) -> Iterable[object]:
    return [value for value in values if values.count(value) > 1]


def _check_unsigned(value: int | None, where: str, what: str) -> None:
    if value is not None and not 0 <= value <= UNSIGNED_MAX:
        raise InvalidInput(
            f"{value} {what}", where=where, hint=f"It goes from 0 to {UNSIGNED_MAX}; leave it out for none"
        )
