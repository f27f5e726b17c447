# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decisions about one key: what differs, what is refused, and the body of the request that changes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Exists, InvalidInput, NotOwned
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.checks import check_key
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.files import SecretFile
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    NEVER,
    Actual,
    ActualKey,
    Desired,
    DesiredKey,
    KeyInfo,
    KeyRow,
    now,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Change

# what a new key is like
NEW_INFO = KeyInfo(create_bucket=False, secret=None)


def plan_key(wanted: DesiredKey, actual: ActualKey | None, only_names: Sequence[str] = ()) -> Change[Desired, Actual]:
    """:param only_names: names of this key that are the only ones of their buckets.

    :raises HostingError: the key is refused.
    """
    check_key(wanted)
    row = chosen_row(wanted, actual.matches if actual else ())
    if not wanted.present:
        return _plan_deletion(wanted, actual, row, only_names)
    file = actual.file if actual else None
    if row is None:
        _check_can_be_made(wanted, file)
        return Change(wanted.item, "create", {}, _show_wanted(wanted, None), wanted, actual)
    if wanted.access_key_id is not None and row.id != wanted.access_key_id:
        raise Exists(
            f"a key of this name has the access key id {row.id}, not {wanted.access_key_id}",
            where=wanted.item,
            hint="A secret cannot be changed: delete the old key first (its access_key_id with state absent)",
        )
    info = actual.info if actual and actual.info else NEW_INFO
    _check_file(wanted, file, wanted.secret or info.secret)
    before, after = _show(wanted, row, info, file), _show_wanted(wanted, row)
    return Change(wanted.item, "unchanged" if before == after else "update", before, after, wanted, actual)


def chosen_row(wanted: DesiredKey, rows: Sequence[KeyRow]) -> KeyRow | None:
    """The one key that *wanted* is about.

    :raises HostingError: there are several, or it is somebody else's.
    """
    if not wanted.present and wanted.access_key_id is not None:
        # known by its id, so that one of two keys of the same name can be deleted, and never the wrong one
        rows = [row for row in rows if row.id == wanted.access_key_id]
    for row in rows:
        if row.id == wanted.access_key_id and row.name != wanted.name:
            raise NotOwned(
                f"the access key id {row.id} belongs to the key {row.name!r}",
                where=wanted.item,
                hint="Use another access key id",
            )
    if len(rows) > 1:
        raise Exists(
            f"{len(rows)} keys have this name: {', '.join(row.id for row in rows)}",
            where=wanted.item,
            hint="Delete all but one of them (access_key_id with state absent)",
        )
    return rows[0] if rows else None


def key_update(wanted: DesiredKey, row: KeyRow | None, info: KeyInfo) -> dict[str, Any]:
    """The body of UpdateKey (and of CreateKey) that gives the key its settings; empty: they are as wanted."""
    body: dict[str, Any] = {}
    if wanted.create_bucket is not None and wanted.create_bucket != info.create_bucket:
        # flags to add and to take, not a state
        body["allow" if wanted.create_bucket else "deny"] = {"createBucket": True}
    expiration = _wanted_expiration(wanted, row)
    if expiration != (row.expiration if row else NEVER):
        body |= {"neverExpires": True} if expiration == NEVER else {"expiration": expiration}
    return body


def _wanted_expiration(wanted: DesiredKey, row: KeyRow | None) -> str:
    if wanted.expiration is not None:
        return wanted.expiration
    # a key that is wanted and is not told to expire is valid
    return NEVER if row is None or row.expired else row.expiration


def _plan_deletion(
    wanted: DesiredKey, actual: ActualKey | None, row: KeyRow | None, only_names: Sequence[str]
) -> Change[Desired, Actual]:
    if row is None:
        return Change(wanted.item, "unchanged", desired=wanted)
    if only_names:
        raise InvalidInput(
            f"{', '.join(only_names[:5])}: buckets that have no other name than this key's",
            where=wanted.item,
            hint="Give them a global alias (name and id under buckets) or delete them first",
        )
    before = {"access_key_id": row.id, "expired": row.expired}
    return Change(wanted.item, "delete", before, {}, wanted, actual)


def _check_can_be_made(wanted: DesiredKey, file: SecretFile | None) -> None:
    if wanted.access_key_id is None and wanted.secret_file is None:
        raise InvalidInput(
            "the key does not exist, and its secret would be lost: neither access_key_id and secret_access_key nor"
            " secret_file are given",
            where=wanted.item,
            hint="Give secret_file to have Garage make the key, or make and store id and secret first",
        )
    _check_file(wanted, file, wanted.secret)


def _check_file(wanted: DesiredKey, file: SecretFile | None, secret: str | None) -> None:
    if file is not None and file.content is not None and file.content != secret:
        raise Exists(
            f"{wanted.secret_file} holds something else than the secret of this key",
            where=f"{wanted.item}, secret_file",
            hint="Move it away or give another path; Garage still has the secret",
        )


def _show(wanted: DesiredKey, row: KeyRow, info: KeyInfo, file: SecretFile | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"access_key_id": row.id, "expired": row.expired}
    if wanted.expiration is not None:
        shown["expiration"] = row.expiration
    if wanted.create_bucket is not None:
        shown["create_bucket"] = info.create_bucket
    if file is not None:
        kept = "written" if file.private else "readable for others"
        shown["secret_file"] = "missing" if file.content is None else kept
    return shown


def _show_wanted(wanted: DesiredKey, row: KeyRow | None) -> dict[str, Any]:
    expiration = _wanted_expiration(wanted, row)
    # the server's clock decides, as long as it is asked about the same instant
    kept = row is not None and expiration == row.expiration
    shown: dict[str, Any] = {
        "access_key_id": wanted.access_key_id or (row.id if row else "made by Garage"),
        "expired": row.expired if row and kept else expiration != NEVER and expiration <= now(),
    }
    if wanted.expiration is not None:
        shown["expiration"] = expiration
    if wanted.create_bucket is not None:
        shown["create_bucket"] = wanted.create_bucket
    if wanted.secret_file is not None:
        shown["secret_file"] = "written"
    return shown
