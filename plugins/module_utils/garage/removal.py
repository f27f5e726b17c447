# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Emptying a bucket that goes: all of it is exported and verified first, with a key that lives only meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    NotFound,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.checks import export_key_name
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.export import (
    Export,
    drain_bucket,
    export_bucket,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import ActualBucket, Permission

# access key id and secret -> S3 client
OpenS3: TypeAlias = Callable[[str, str], Any]
# should nobody be left to delete the key, it ends by itself
KEY_LIFE = timedelta(days=1)
WRITING = Permission(write=True, owner=True).flags()


def export_and_drain(
    client: Client, open_s3: OpenS3, bucket: ActualBucket, *, name: str, directory: str, left_over: Sequence[str]
) -> Export:
    """Take the right to write from all keys, export all objects, verify, and delete exactly these objects.

    :param name: a name by which every key finds the bucket.
    :param left_over: ids of keys that earlier exports of this bucket have left behind.
    :raises HostingError: something is in the way; then the bucket keeps what was not exported.
    """
    for key_id in left_over:
        delete_key(client, key_id)
    for grant in bucket.grants:
        flags = grant.permission.flags() & WRITING
        if flags:
            permissions = dict.fromkeys(sorted(flags), True)
            client.post(
                "DenyBucketKey", {"bucketId": bucket.id, "accessKeyId": grant.key_id, "permissions": permissions}
            )
    ends = datetime.now(UTC) + KEY_LIFE
    made = client.post("CreateKey", {"name": export_key_name(name), "expiration": ends.isoformat(timespec="seconds")})
    try:
        permissions = {"read": True, "write": True}
        client.post(
            "AllowBucketKey", {"bucketId": bucket.id, "accessKeyId": made["accessKeyId"], "permissions": permissions}
        )
        s3 = open_s3(made["accessKeyId"], made["secretAccessKey"])
        export = export_bucket(s3, name, Path(directory))
        drain_bucket(s3, name, export)
    except Unreachable as error:
        # the S3 API, or one request too many: no reason to give up the other items
        raise BackendError(error.what, where=error.where, hint=error.hint) from error
    finally:
        delete_key(client, made["accessKeyId"])
    return export


def delete_key(client: Client, key_id: str) -> None:
    """Delete a key; one that is gone already is no error."""
    try:
        client.post("DeleteKey", id=key_id)
    except NotFound:
        return
