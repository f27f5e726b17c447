# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys and buckets of a Garage cluster as one kind of resource: a bucket's permissions name keys of the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    NotFound,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    Actual,
    ActualBucket,
    ActualKey,
    Desired,
    DesiredBucket,
    DesiredKey,
    KeyRow,
    bucket_from,
    is_owned,
    key_item,
    key_rows,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.plan import (
    BUCKET_ID,
    goal,
    make_plan,
    requests_to,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import (
    Applied,
    Change,
    Plan,
    one_by_one,
)

Parsed = TypeVar("Parsed")

# ListKeys ends there without saying so (src/api/admin/key.rs)
LIST_KEYS_MAX = 10_000


class GarageProvider:
    """Reads with one list of the keys and one request per bucket; writes one bucket or key at a time."""

    kind: ClassVar[str] = "garage"

    def __init__(self, client: Client) -> None:
        self._client = client

    def read(self, desired: Sequence[Desired]) -> Mapping[str, Actual]:
        """All keys of ours, the keys that have a desired name or id, and the desired buckets."""
        rows = _understood(key_rows, self._client.get("ListKeys"))
        if len(rows) >= LIST_KEYS_MAX:
            raise BackendError(
                f"Garage lists only its first {LIST_KEYS_MAX} keys, so a key may exist without being seen",
                where="ListKeys",
                hint="Delete keys that nobody uses",
            )
        actual: dict[str, Actual] = {}
        for name in {row.name for row in rows if is_owned(row.name)}:
            actual[key_item(name)] = ActualKey(tuple(row for row in rows if row.name == name))
        for wanted in desired:
            found = self._find(wanted) if isinstance(wanted, DesiredBucket) else _matches(wanted, rows)
            if found is not None:
                actual[wanted.item] = found
        return actual

    def _find(self, wanted: DesiredBucket) -> ActualBucket | None:
        # the alias is looked up, not searched in ListBuckets, which does not show an alias that a crash left half-made
        query = {"globalAlias": wanted.name} if wanted.id is None else {"id": wanted.id}
        if wanted.id is not None and not BUCKET_ID.match(wanted.id):
            return None
        try:
            return _understood(bucket_from, self._client.get("GetBucketInfo", **query))
        except NotFound:
            return None

    def plan(self, desired: Sequence[Desired], actual: Mapping[str, Actual]) -> Plan[Desired, Actual]:
        return make_plan(desired, actual)

    def apply(self, changes: Sequence[Change[Desired, Actual]]) -> Iterator[Applied[Desired, Actual]]:
        for applied in one_by_one(changes, self._apply_one):
            yield applied
            if isinstance(applied.error, Unreachable):
                raise applied.error

    def _apply_one(self, change: Change[Desired, Actual]) -> None:
        if isinstance(change.desired, DesiredKey):
            self._apply_key(change.action, change.desired, change.actual)
        elif isinstance(change.desired, DesiredBucket):
            self._apply_bucket(change.action, change.desired, change.actual)

    def _apply_key(self, action: str, wanted: DesiredKey, actual: Actual | None) -> None:
        if action == "create":
            body = {"accessKeyId": wanted.access_key_id, "secretAccessKey": wanted.secret, "name": wanted.name}
            self._client.post("ImportKey", body)
        elif isinstance(actual, ActualKey):
            key_id = wanted.access_key_id or actual.matches[0].id
            if action == "delete":
                self._delete("DeleteKey", key_id)
            else:
                self._client.post("UpdateKey", {"neverExpires": True}, id=key_id)

    def _apply_bucket(self, action: str, wanted: DesiredBucket, actual: Actual | None) -> None:
        if isinstance(actual, ActualBucket):
            bucket = actual
        else:
            # the alias in the same call: a bucket without alias could not be found again
            bucket = _understood(bucket_from, self._client.post("CreateBucket", {"globalAlias": wanted.name}))
        if action == "delete":
            self._delete("DeleteBucket", bucket.id)
            return
        for endpoint, query, body in requests_to(bucket, goal(wanted, bucket)):
            self._client.post(endpoint, body, **query)

    def _delete(self, endpoint: str, object_id: str) -> None:
        try:
            self._client.post(endpoint, id=object_id)
        except NotFound:
            return  # an earlier try, or somebody else, was faster

    def outputs(self, actual: Actual) -> Mapping[str, Any]:
        """``id`` of a bucket, ``access_key_id`` of a key."""
        if isinstance(actual, ActualBucket):
            return {"kind": "bucket", "id": actual.id}
        return {"kind": "key", "access_key_id": actual.matches[0].id}


def _understood(parse: Callable[[Any], Parsed], answer: Any) -> Parsed:
    try:
        return parse(answer)
    except (KeyError, TypeError, AttributeError) as error:
        raise BackendError(
            f"Garage's answer is not understood ({type(error).__name__}: {error})",
            where="admin API v2",
            hint="Check that admin_url is Garage 2.0 or newer",
        ) from error


def _matches(wanted: DesiredKey, rows: Sequence[KeyRow]) -> ActualKey | None:
    found = tuple(row for row in rows if wanted.name == row.name or wanted.access_key_id == row.id)
    return ActualKey(found) if found else None
