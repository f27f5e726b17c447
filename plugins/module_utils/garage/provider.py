# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys and buckets of a Garage cluster as one kind of resource: a bucket's permissions name keys of the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    HostingError,
    InvalidInput,
    Locked,
    NotFound,
    ReadBackDiffers,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.bucket_plan import (
    NOTHING,
    check_unused_by_others,
    goal,
    named_by,
    requests_to,
    show,
    with_grants,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.checks import BUCKET_ID, export_key_name
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.files import read_secret, reserved
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.key_plan import (
    NEW_INFO,
    chosen_row,
    key_update,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    Actual,
    ActualBucket,
    ActualKey,
    BucketRow,
    Desired,
    DesiredBucket,
    DesiredKey,
    KeyRow,
    bucket_from,
    bucket_rows,
    is_owned,
    key_info,
    key_item,
    key_rows,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.plan import Surroundings, make_plan
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.removal import (
    OpenS3,
    delete_key,
    export_and_drain,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Applied, Change, Plan

Parsed = TypeVar("Parsed")

# ListKeys ends there without saying so (src/api/admin/key.rs)
LIST_KEYS_MAX = 10_000


class GarageProvider:
    """Reads with one list of the keys, one of the buckets and one request per bucket; writes one item at a time."""

    kind: ClassVar[str] = "garage"

    def __init__(self, client: Client, open_s3: OpenS3 | None = None) -> None:
        """:param open_s3: needed to delete a bucket that holds objects."""
        self._client = client
        self._open_s3 = open_s3
        self.surroundings = Surroundings()
        # by item: buckets as they were read last, and where the objects of deleted ones are
        self.buckets: dict[str, ActualBucket] = {}
        self.exports: dict[str, dict[str, Any]] = {}

    def read(self, desired: Sequence[Desired]) -> Mapping[str, Actual]:
        """All keys of ours, the keys that have a desired name or id, and the desired buckets."""
        rows = self._key_rows()
        needs_buckets = any(isinstance(wanted, DesiredBucket) or not wanted.present for wanted in desired)
        bucket_list = self._bucket_rows() if needs_buckets else None
        actual: dict[str, Actual] = {}
        problems: dict[str, HostingError] = {}
        key_names = {row.id: row.name for row in rows}
        named = {row.id: named_by(row, key_names) for row in bucket_list or () if row.local_aliases}
        for name in {row.name for row in rows if is_owned(row.name)}:
            actual[key_item(name)] = ActualKey(tuple(row for row in rows if row.name == name))
        for wanted in desired:
            try:
                found: Actual | None
                if isinstance(wanted, DesiredBucket):
                    bucket = self._bucket(wanted)
                    found = bucket and with_grants(bucket, named.get(bucket.id, ()))
                else:
                    found = self._key(wanted, rows)
            except Unreachable:
                raise
            except HostingError as error:
                problems[wanted.item] = error
                continue
            if found is not None:
                actual[wanted.item] = found
        self.surroundings = Surroundings(bucket_list, problems)
        self.buckets |= {item: found for item, found in actual.items() if isinstance(found, ActualBucket)}
        return actual

    def _key_rows(self) -> tuple[KeyRow, ...]:
        rows = understood(key_rows, self._client.get("ListKeys"))
        if len(rows) >= LIST_KEYS_MAX:
            raise BackendError(
                f"Garage lists only its first {LIST_KEYS_MAX} keys, so a key may exist without being seen",
                where="ListKeys",
                hint="Delete keys that nobody uses",
            )
        return rows

    def _bucket_rows(self) -> tuple[BucketRow, ...] | None:
        try:
            return understood(bucket_rows, self._client.get("ListBuckets"))
        except Denied:
            # a token without this scope still does all but a few things, and these are refused one by one
            return None

    def _key(self, wanted: DesiredKey, rows: Sequence[KeyRow]) -> ActualKey | None:
        found = tuple(row for row in rows if wanted.name == row.name or wanted.access_key_id == row.id)
        if not wanted.present:
            return ActualKey(found) if found else None
        where = f"{wanted.item}, secret_file"
        file = read_secret(wanted.secret_file, where) if wanted.secret_file is not None else None
        if not found:
            return None if file is None else ActualKey((), None, file)
        row = chosen_row(wanted, found)
        needs_secret = file is not None and wanted.secret is None
        if row is None or not (needs_secret or wanted.create_bucket is not None):
            return ActualKey(found, None, file)
        query = {"showSecretKey": "true"} if needs_secret else {}
        return ActualKey(found, understood(key_info, self._client.get("GetKeyInfo", id=row.id, **query)), file)

    def _bucket(self, wanted: DesiredBucket) -> ActualBucket | None:
        # the alias is looked up, not searched in ListBuckets, which does not show an alias that a crash left half-made
        query = {"globalAlias": wanted.name} if wanted.id is None else {"id": wanted.id}
        if wanted.export_dir is not None and self._open_s3 is None:
            raise InvalidInput(
                "objects are exported through the S3 API, whose address is not known",
                where=f"{wanted.item}, export_dir",
                hint="Give s3_endpoint (GARAGE_S3_ENDPOINT)",
            )
        if wanted.id is not None and not BUCKET_ID.match(wanted.id):
            return None
        try:
            return understood(bucket_from, self._client.get("GetBucketInfo", **query))
        except NotFound:
            return None

    def plan(self, desired: Sequence[Desired], actual: Mapping[str, Actual]) -> Plan[Desired, Actual]:
        return make_plan(desired, actual, self.surroundings)

    def apply(self, changes: Sequence[Change[Desired, Actual]]) -> Iterator[Applied[Desired, Actual]]:
        """An answer that is lost is looked for once; when there is still none, Garage is gone and the run ends."""
        for change in changes:
            try:
                self._apply_or_look_again(change)
            except Unreachable:
                raise
            except HostingError as error:
                yield Applied(change, error)
            else:
                yield Applied(change)

    def _apply_or_look_again(self, change: Change[Desired, Actual]) -> None:
        try:
            self._apply_one(change)
        except Unreachable as lost:
            # it may have been done all the same: what is there now decides what is left to do
            wanted = [change.desired] if change.desired is not None else []
            plan = self.plan(wanted, self.read(wanted))
            for refusal in plan.refusals:
                raise refusal.error from lost
            try:
                for left in plan.pending():
                    self._apply_one(left)
            except Unreachable as again:
                # Garage answers, but not to this: the other items may fare better
                raise BackendError(again.what, where=again.where, hint=again.hint) from again

    def _apply_one(self, change: Change[Desired, Actual]) -> None:
        if isinstance(change.desired, DesiredKey):
            self._apply_key(change.action, change.desired, change.actual)
        elif isinstance(change.desired, DesiredBucket):
            self._apply_bucket(change.action, change.desired, change.actual)

    def _apply_key(self, action: str, wanted: DesiredKey, actual: Actual | None) -> None:
        known = actual if isinstance(actual, ActualKey) else ActualKey(())
        row = chosen_row(wanted, known.matches)
        if action == "delete":
            if row is not None:
                delete_key(self._client, row.id)
            return
        where = f"{wanted.item}, secret_file"
        with nullcontext() if wanted.secret_file is None else reserved(wanted.secret_file, where) as keep:
            secret = wanted.secret or (known.info.secret if known.info else None)
            if keep is not None and secret is not None:
                # before the key exists
                keep(secret)
            settings = key_update(wanted, row, known.info or NEW_INFO)
            key_id = row.id if row else wanted.access_key_id
            if row is None and wanted.access_key_id is not None:
                body = {"accessKeyId": wanted.access_key_id, "secretAccessKey": wanted.secret, "name": wanted.name}
                self._client.post("ImportKey", body)
            elif row is None:
                made = understood(key_info, self._client.post("CreateKey", {"name": wanted.name, **settings}))
                if keep is not None and made.secret is not None:
                    keep(made.secret)
                return
            if settings:
                self._client.post("UpdateKey", settings, id=str(key_id))

    def _apply_bucket(self, action: str, wanted: DesiredBucket, actual: Actual | None) -> None:
        if not isinstance(actual, ActualBucket):
            # the alias in the same call: a bucket without alias could not be found again
            bucket = understood(bucket_from, self._client.post("CreateBucket", {"globalAlias": wanted.name}))
        else:
            bucket = self._unchanged_since(wanted, actual)
        if action == "delete":
            check_unused_by_others(wanted, bucket)
            self._delete_bucket(wanted, bucket)
            return
        after = goal(wanted, bucket)
        for endpoint, query, body in requests_to(bucket, after):
            answer = self._client.post(endpoint, body, **query)
            if endpoint == "UpdateBucket":
                _check_kept(wanted, after, understood(bucket_from, answer))

    def _unchanged_since(self, wanted: DesiredBucket, planned: ActualBucket) -> ActualBucket:
        """The bucket as it is now: UpdateBucket would silently undo what somebody else has done since the plan."""
        bucket = understood(bucket_from, self._client.get("GetBucketInfo", id=planned.id))
        bucket = with_grants(bucket, [replace(grant, permission=NOTHING) for grant in planned.grants])
        before, after = show(planned), show(bucket)
        if before != after:
            changed = ", ".join(name for name in before if before[name] != after[name])
            raise Locked(
                f"somebody else has changed {changed} since this run planned", where=wanted.item, hint="Run again"
            )
        return bucket

    def _delete_bucket(self, wanted: DesiredBucket, bucket: ActualBucket) -> None:
        if bucket.objects and wanted.export_dir is not None and self._open_s3 is not None:
            left_over = [row.id for row in self._key_rows() if row.name == export_key_name(wanted.name)]
            name = wanted.name if wanted.name in bucket.aliases else bucket.id
            export = export_and_drain(
                self._client, self._open_s3, bucket, name=name, directory=wanted.export_dir, left_over=left_over
            )
            self.exports[wanted.item] = {
                "directory": str(export.directory),
                "objects": export.objects,
                "bytes": export.bytes,
                "manifest_sha256": export.digest,
            }
        try:
            self._client.post("DeleteBucket", id=bucket.id)
        except NotFound:
            return  # an earlier try, or somebody else, was faster

    def outputs(self, actual: Actual) -> Mapping[str, Any]:
        """``id`` of a bucket, ``access_key_id`` of a key."""
        if isinstance(actual, ActualBucket):
            return {"kind": "bucket", "id": actual.id}
        return {"kind": "key", "access_key_id": actual.matches[0].id} if actual.matches else {"kind": "key"}


def understood(parse: Callable[[Any], Parsed], answer: Any) -> Parsed:
    """What *parse* makes of *answer*.

    :raises BackendError: it is no answer of Garage.
    """
    try:
        return parse(answer)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BackendError(
            f"Garage's answer is not understood ({type(error).__name__}: {error})",
            where="admin API v2",
            hint="Check that admin_url is Garage 2.0 or newer",
        ) from error


def _check_kept(wanted: DesiredBucket, after: ActualBucket, answer: ActualBucket) -> None:
    """:raises ReadBackDiffers: the server has not kept the rules that it was sent."""
    for name in ("cors_rules", "lifecycle_rules"):
        if getattr(after, name) != getattr(answer, name):
            raise ReadBackDiffers(
                f"Garage accepted {name} and did not keep them",
                where=wanted.item,
                hint="Through the admin API they need Garage 2.3; older ones take them through S3 only",
            )
