# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Buckets that hold objects and go: exported, verified, drained, deleted, through the simulator's own S3 API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.garage import removal
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Client, http_sender
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    Desired,
    DesiredBucket,
    Permission,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.provider import GarageProvider
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.s3 import s3_client
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile
from botocore.exceptions import ClientError
from garage_support import key, result
from lab.garage.background import RunningGarage, running_garage

ALL = Permission(read=True, write=True, owner=True)
MEDIA = DesiredBucket("media", permissions=(("fediversity/one", ALL),))
OBJECTS = {"a": b"1", "folder/../{{ b }}": b"22", "\u00e9\n": b""}
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def garage(tmp_path: Path) -> Iterator[RunningGarage]:
    with running_garage(tmp_path / "garage") as running:
        yield running


@pytest.fixture
def opened() -> list[tuple[str, str]]:
    """Ids and secrets of the keys that the S3 API was opened with."""
    return []


@pytest.fixture
def run(garage: RunningGarage, opened: list[tuple[str, str]]) -> Run:
    def open_s3(key_id: str, secret: str) -> Any:
        opened.append((key_id, secret))
        return s3_client(garage.s3_endpoint, garage.region, key_id, secret)

    def make(*wanted: Desired, check: bool = False, open_with: Any = open_s3) -> dict[str, Any]:
        provider = GarageProvider(client(garage), open_with)
        done = reconcile(provider, wanted, check=check)
        return {**done, "exports": provider.exports}

    return make


def client(garage: RunningGarage) -> Client:
    return Client(http_sender(garage.url, garage.admin_token), where=garage.url)


def fill(garage: RunningGarage, run: Run) -> str:
    assert not run(key(), MEDIA)["failed"]
    bucket_id = str(client(garage).get("GetBucketInfo", globalAlias="media")["id"])
    for name, content in OBJECTS.items():
        garage.store.tables.objects.put(bucket_id, name, content)
    return bucket_id


def going(tmp_path: Path, **changes: Any) -> DesiredBucket:
    return DesiredBucket("media", present=False, export_dir=str(tmp_path / "exports"), **changes)


def key_names(garage: RunningGarage) -> list[str]:
    return [row["name"] for row in client(garage).get("ListKeys")]


def test_a_bucket_that_goes_is_exported_first(
    garage: RunningGarage, run: Run, opened: list[tuple[str, str]], tmp_path: Path
) -> None:
    fill(garage, run)
    predicted = run(going(tmp_path), check=True)
    assert (opened, (tmp_path / "exports").exists()) == ([], False)
    done = run(going(tmp_path))
    assert not done["failed"], done["msg"]
    assert predicted["diff"] == done["diff"]
    assert done["diff"]["before"]["bucket media"]["objects"] == len(OBJECTS)
    export = done["exports"]["bucket media"]
    assert (export["objects"], export["bytes"]) == (3, 3)
    lines = (Path(export["directory"]) / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    held = {row["key"]: (Path(export["directory"]) / row["file"]).read_bytes() for row in map(json.loads, lines)}
    assert held == OBJECTS
    assert garage.store.tables["buckets"] == {}
    assert key_names(garage) == ["fediversity/one"]
    assert opened
    assert [secret for _key_id, secret in opened if secret in json.dumps(done)] == []
    assert not run(going(tmp_path))["changed"]


def test_without_a_directory_or_an_endpoint_nothing_happens(garage: RunningGarage, run: Run, tmp_path: Path) -> None:
    bucket_id = fill(garage, run)
    done = run(DesiredBucket("media", present=False))
    assert "Give export_dir" in result(done, "bucket media")["msg"]
    done = run(going(tmp_path), open_with=None)
    assert "GARAGE_S3_ENDPOINT" in result(done, "bucket media")["msg"]
    assert garage.store.tables.objects.counts(bucket_id)["objects"] == 3


def test_an_export_that_fails_leaves_the_objects_and_no_key(garage: RunningGarage, run: Run, tmp_path: Path) -> None:
    bucket_id = fill(garage, run)
    (tmp_path / "exports").write_text("no directory", encoding="ascii")
    done = run(going(tmp_path), DesiredBucket("other"))
    assert "exports" in result(done, "bucket media")["msg"]
    assert not result(done, "bucket other")["failed"]
    assert garage.store.tables.objects.counts(bucket_id)["objects"] == 3
    assert key_names(garage) == ["fediversity/one"]
    # our keys can no longer write, and a bucket that stays gets this back
    assert garage.store.tables["buckets"][bucket_id]["keys"][key().access_key_id] == [True, False, False]
    assert not run(MEDIA)["failed"]
    assert garage.store.tables["buckets"][bucket_id]["keys"][key().access_key_id] == [True, True, True]


def test_nobody_else_writes_to_a_bucket_that_goes(
    garage: RunningGarage, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket_id = fill(garage, run)
    theirs = client(garage).post("CreateKey", {"name": "somebody"})
    flags = {"read": True, "write": True, "owner": True}
    body = {"bucketId": bucket_id, "accessKeyId": theirs["accessKeyId"], "permissions": flags}
    client(garage).post("AllowBucketKey", body)
    s3 = s3_client(garage.s3_endpoint, garage.region, theirs["accessKeyId"], theirs["secretAccessKey"])
    drain, refused = removal.drain_bucket, []

    def drain_late(export_s3: Any, bucket: str, export: Any) -> int:
        for write in (
            lambda: s3.put_object(Bucket="media", Key="a", Body=b"newer"),
            lambda: s3.list_objects_v2(Bucket="media"),
        ):
            try:
                write()
            except ClientError as error:
                refused.append(error.operation_name)
        return drain(export_s3, bucket, export)

    monkeypatch.setattr(removal, "drain_bucket", drain_late)
    done = run(going(tmp_path, id=bucket_id))
    assert not done["failed"], done["msg"]
    assert refused == ["PutObject"]


def test_what_somebody_writes_meanwhile_is_left(
    garage: RunningGarage, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket_id = fill(garage, run)
    drain = removal.drain_bucket

    def drain_late(s3: Any, bucket: str, export: Any) -> int:
        garage.store.tables.objects.put(bucket_id, "late", b"late")
        return drain(s3, bucket, export)

    monkeypatch.setattr(removal, "drain_bucket", drain_late)
    done = run(going(tmp_path))
    assert "'late'" in result(done, "bucket media")["msg"]
    assert garage.store.tables.objects.counts(bucket_id)["objects"] == 4
    assert key_names(garage) == ["fediversity/one"]
    monkeypatch.undo()
    assert not run(going(tmp_path))["failed"]


def test_an_s3_api_that_is_not_there_fails_only_its_bucket(garage: RunningGarage, run: Run, tmp_path: Path) -> None:
    fill(garage, run)

    def gone(key_id: str, secret: str) -> Any:
        raise removal.Unreachable("no answer from Garage's S3 API")

    done = run(going(tmp_path), DesiredBucket("other"), open_with=gone)
    assert "no answer from Garage's S3 API" in result(done, "bucket media")["msg"]
    assert not result(done, "bucket other")["failed"]
    assert key_names(garage) == ["fediversity/one"]


def test_keys_that_a_crash_left_behind_are_deleted(garage: RunningGarage, run: Run, tmp_path: Path) -> None:
    fill(garage, run)
    for _number in range(2):
        client(garage).post("CreateKey", {"name": "fediversity/export-media"})
    client(garage).post("CreateKey", {"name": "fediversity/export-other"})
    assert not run(going(tmp_path))["failed"]
    assert key_names(garage).count("fediversity/export-media") == 0
    assert sorted(key_names(garage)) == ["fediversity/export-other", "fediversity/one"]
