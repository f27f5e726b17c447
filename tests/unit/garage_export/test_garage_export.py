# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exports of buckets and draining, against the simulator's S3 API."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    InvalidInput,
    Locked,
    NotFound,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage import export as export_module
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Client, http_sender
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.export import drain_bucket, export_bucket
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.s3 import s3_client, s3_errors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab.garage.background import RunningGarage, running_garage

BUCKET = "media"
CONTENTS = {
    "a": b"one",
    "../../etc/passwd": b"two",
    "folder/": b"",
    "é\x01 {{ x }}": b"three",
    "z" * 900: bytes(range(256)),
}


class Site:
    """A bucket and a client of a key that may read and write it."""

    def __init__(self, garage: RunningGarage) -> None:
        self.garage = garage
        self.admin = Client(http_sender(garage.url, garage.admin_token))
        self.bucket = self.admin.post("CreateBucket", {"globalAlias": BUCKET})["id"]
        self.key = self.admin.post("CreateKey", {"name": "fediversity/export"})
        self.permit("Allow", "read", "write")
        self.s3 = self.client()
        self.objects = garage.store.tables.objects

    def client(self, secret: str | None = None) -> Any:
        secret = secret or self.key["secretAccessKey"]
        return s3_client(self.garage.s3_endpoint, "garage", self.key["accessKeyId"], secret)

    def permit(self, verb: str, *flags: str) -> None:
        permissions = dict.fromkeys(flags, True)
        body = {"bucketId": self.bucket, "accessKeyId": self.key["accessKeyId"], "permissions": permissions}
        self.admin.post(f"{verb}BucketKey", body)

    def put(self, contents: dict[str, bytes]) -> None:
        for key, content in contents.items():
            self.objects.put(self.bucket, key, content, {"content-type": "text/x-made", "x-amz-meta-by": "me"})

    def now(self) -> dict[str, bytes]:
        rows = self.objects.listed(self.bucket, "")
        return {row.key: self.objects.content(self.bucket, row.key) for row in rows}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGarage]:
    with running_garage(tmp_path_factory.mktemp("garage")) as garage:
        yield garage


@pytest.fixture
def site(running: RunningGarage) -> Iterator[Site]:
    made = Site(running)
    yield made
    for key in made.now():
        made.objects.delete(made.bucket, key)
    made.admin.post("DeleteBucket", id=made.bucket)


def rows(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def test_everything_is_in_the_export(site: Site, tmp_path: Path) -> None:
    site.put(CONTENTS)
    site.s3.upload_fileobj(io.BytesIO(b"x" * (9 * 2**20)), BUCKET, "large")
    export = export_bucket(site.s3, BUCKET, tmp_path / "exports")
    assert (export.objects, export.bytes) == (6, sum(map(len, site.now().values())))
    manifest = rows(export.directory)
    assert {row["key"]: (export.directory / row["file"]).read_bytes() for row in manifest} == site.now()
    for row in manifest:
        content = site.now()[row["key"]]
        assert (row["size"], row["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert row["etag"] == site.objects.get(site.bucket, row["key"]).etag  # type: ignore[union-attr]
    headers = {row["key"]: row["headers"] for row in manifest}
    assert headers["a"] == {"ContentType": "text/x-made", "Metadata": {"by": "me"}}
    summary = json.loads((export.directory / "export.json").read_text(encoding="utf-8"))
    assert summary == {"bucket": BUCKET, "objects": 6, "bytes": export.bytes, "manifest_sha256": export.digest}
    assert list((tmp_path / "exports").iterdir()) == [export.directory]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in export.directory.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert stat.S_IMODE(export.directory.stat().st_mode) == 0o700

    assert drain_bucket(site.s3, BUCKET, export) == 6
    assert site.now() == {}
    assert drain_bucket(site.s3, BUCKET, export) == 0


def test_an_empty_bucket(site: Site, tmp_path: Path) -> None:
    export = export_bucket(site.s3, BUCKET, tmp_path)
    assert (export.objects, rows(export.directory)) == (0, [])
    assert drain_bucket(site.s3, BUCKET, export) == 0


def test_more_objects_than_a_page_and_a_directory_hold(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "BATCH", 7)
    site.put({f"{n:03}": str(n).encode() for n in range(23)})
    export = export_bucket(site.s3, BUCKET, tmp_path)
    assert sorted(path.name for path in (export.directory / "objects").iterdir()) == [f"{n:06}" for n in range(4)]
    assert drain_bucket(site.s3, BUCKET, export) == 23
    assert site.now() == {}


@pytest.mark.parametrize("change", [{"a": b"changed"}, {"new": b"new"}, {"0": b"new"}, {"zzz": b""}])
def test_what_came_after_the_export_keeps_everything(site: Site, tmp_path: Path, change: dict[str, bytes]) -> None:
    site.put(CONTENTS)
    export = export_bucket(site.s3, BUCKET, tmp_path)
    site.put(change)
    with pytest.raises(Locked, match=f"bucket media: 1 objects are new or were changed.*{next(iter(change))}"):
        drain_bucket(site.s3, BUCKET, export)
    assert site.now() == {**CONTENTS, **change}


def test_the_same_bytes_put_again_are_another_object(site: Site, tmp_path: Path) -> None:
    """Its metadata may be other than what was exported."""
    site.put(CONTENTS)
    export = export_bucket(site.s3, BUCKET, tmp_path)
    was = site.objects.get(site.bucket, "a")
    site.put({"a": CONTENTS["a"]})
    assert site.objects.get(site.bucket, "a") != was
    with pytest.raises(Locked):
        drain_bucket(site.s3, BUCKET, export)


def test_what_comes_during_the_drain_is_left_alone(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "BATCH", 2)
    contents = {f"{n}": b"x" for n in range(6)}
    site.put(contents)
    export = export_bucket(site.s3, BUCKET, tmp_path)
    real = export_module._delete

    def somebody_writes(s3: Any, bucket: str, keys: list[str], where: str) -> None:
        site.put({"3": b"changed", "5a": b"new"})
        real(s3, bucket, keys, where)

    monkeypatch.setattr(export_module, "_delete", somebody_writes)
    with pytest.raises(Locked, match="2 objects"):
        drain_bucket(site.s3, BUCKET, export)
    assert site.now() == {"3": b"changed", "5a": b"new"}


def test_what_changes_during_the_export_leaves_no_export(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put(CONTENTS)
    real = export_module._copy_object

    def somebody_writes(s3: Any, bucket: str, item: Any, path: Path) -> Any:
        site.put({"a": b"changed"})
        return real(s3, bucket, item, path)

    monkeypatch.setattr(export_module, "_copy_object", somebody_writes)
    with pytest.raises(Locked, match="bucket media: the object was changed meanwhile"):
        export_bucket(site.s3, BUCKET, tmp_path / "exports")
    assert list((tmp_path / "exports").iterdir()) == []


@pytest.mark.parametrize("harm", ["missing", "changed", "manifest", "fewer"])
def test_an_export_that_is_not_whole_any_more_deletes_nothing(site: Site, tmp_path: Path, harm: str) -> None:
    site.put(CONTENTS)
    export = export_bucket(site.s3, BUCKET, tmp_path)
    manifest, first = export.directory / "manifest.jsonl", export.directory / "objects" / "000000" / "000"
    if harm == "missing":
        first.unlink()
    elif harm == "changed":
        first.write_bytes(b"other")
    elif harm == "manifest":
        manifest.write_text(manifest.read_text(encoding="utf-8").replace("one", "two") + "\n", encoding="utf-8")
    else:
        export = replace(export, objects=4)
    with pytest.raises(BackendError):
        drain_bucket(site.s3, BUCKET, export)
    assert site.now() == CONTENTS


def test_a_full_disk_leaves_nothing_half_done(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put(CONTENTS)
    written = 0
    real = os.fsync

    def full(descriptor: int) -> None:
        nonlocal written
        written += 1
        if written > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(export_module.os, "fsync", full)
    with pytest.raises(BackendError, match=r"No space left on device.*export_dir"):
        export_bucket(site.s3, BUCKET, tmp_path / "exports")
    monkeypatch.undo()
    assert list((tmp_path / "exports").iterdir()) == []
    assert site.now() == CONTENTS


def test_a_directory_that_is_none(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InvalidInput, match="export_dir"):
        export_bucket(site.s3, BUCKET, tmp_path / "file")


def test_bytes_that_are_not_those_of_the_etag(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put(CONTENTS)
    monkeypatch.setattr(site.objects, "content", lambda bucket, key: b"!!!")
    with pytest.raises(BackendError, match=r"etc/passwd' are not those"):
        export_bucket(site.s3, BUCKET, tmp_path)


def test_an_object_that_no_request_can_name(site: Site, tmp_path: Path) -> None:
    site.put({"/a": b"other", "a": b"one"})
    with pytest.raises(BackendError, match="'/a', because it begins with a slash"):
        export_bucket(site.s3, BUCKET, tmp_path)


def test_what_the_key_may_not(site: Site, tmp_path: Path) -> None:
    site.put(CONTENTS)
    export = export_bucket(site.s3, BUCKET, tmp_path)
    site.permit("Deny", "write")
    with pytest.raises(Denied, match="bucket media"):
        drain_bucket(site.s3, BUCKET, export)
    assert site.now() == CONTENTS
    site.permit("Deny", "read")
    with pytest.raises(Denied, match="bucket media"):
        export_bucket(site.s3, BUCKET, tmp_path)
    with pytest.raises(NotFound):
        export_bucket(site.s3, "nothing", tmp_path)
    sentinel = "5e47" * 16
    with pytest.raises(Denied) as caught:
        export_bucket(site.client(sentinel), BUCKET, tmp_path)
    assert sentinel not in str(caught.value)
    site.permit("Allow", "read", "write")


def test_nobody_answers(tmp_path: Path) -> None:
    s3 = s3_client("http://127.0.0.1:1", "garage", "GK1", "secret", timeout=1)
    with pytest.raises(Unreachable, match="s3_endpoint"):
        export_bucket(s3, BUCKET, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:3900", "ftp://h", "http://u:p@h", "http://h/?x"])
def test_an_endpoint_that_is_none(endpoint: str) -> None:
    with pytest.raises(InvalidInput, match="s3_endpoint"):
        s3_client(endpoint, "garage", "GK1", "secret")


def test_the_client_knows_nothing_of_the_environment(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file = tmp_path / "config"
    settings_file.write_text("[default]\ns3 =\n    addressing_style = virtual\n", encoding="utf-8")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "GKother",
        "AWS_SECRET_ACCESS_KEY": "other",
        "AWS_SESSION_TOKEN": "other",
        "AWS_PROFILE": "missing",
        "AWS_CONFIG_FILE": str(settings_file),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_DEFAULT_REGION": "elsewhere",
        "AWS_CA_BUNDLE": "/missing",
    }.items():
        monkeypatch.setenv(name, value)
    with s3_errors("here"):
        assert [row["Name"] for row in site.client().list_buckets()["Buckets"]] == [BUCKET]


STATES = st.dictionaries(
    st.text(
        alphabet=st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=12
    ).filter(lambda key: not key.startswith("/")),
    st.binary(max_size=20),
    max_size=8,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=STATES, after=STATES)
def test_only_what_was_exported_and_is_unchanged_goes(
    site: Site, tmp_path: Path, before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    for key in site.now():
        site.objects.delete(site.bucket, key)
    site.put(before)
    export = export_bucket(site.s3, BUCKET, tmp_path)
    kept = {row["key"]: (export.directory / row["file"]).read_bytes() for row in rows(export.directory)}
    assert kept == before
    site.put(after)
    then = site.now()
    if after:
        with pytest.raises(Locked):
            drain_bucket(site.s3, BUCKET, export)
        assert site.now() == then
    else:
        assert drain_bucket(site.s3, BUCKET, export) == len(before)
        assert site.now() == {}
