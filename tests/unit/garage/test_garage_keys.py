# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys beyond what buckets need: made by Garage, secret files, expiration, the right to make buckets."""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    CONTRADICTION,
    NEVER,
    DesiredKey,
    expiration_from,
    instant,
)
from garage_support import Cluster, actions, key, result

ONE = "key fediversity/one"
FUTURE, PAST = "2099-01-01T00:00:00.000Z", "2020-01-01T00:00:00.000Z"


def made(path: Path, **changes: Any) -> DesiredKey:
    """A key that Garage makes."""
    return DesiredKey("fediversity/one", secret_file=str(path / "secret"), **changes)


def only_key(cluster: Cluster) -> dict[str, Any]:
    (row,) = cluster.client().get("ListKeys")
    info: dict[str, Any] = cluster.client().get("GetKeyInfo", id=row["id"], showSecretKey="true")
    return info


def test_garage_makes_the_key_and_the_secret_goes_to_the_file_only(cluster: Cluster, tmp_path: Path) -> None:
    wanted = made(tmp_path, create_bucket=True, expiration=FUTURE)
    predicted = cluster.run(wanted, check=True)
    assert list(tmp_path.iterdir()) == []
    run = cluster.run(wanted)
    assert not run["failed"], run["msg"]
    assert (actions(predicted), predicted["diff"]) == (actions(run), run["diff"])
    info = only_key(cluster)
    file = tmp_path / "secret"
    assert file.read_text(encoding="ascii") == info["secretAccessKey"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert (info["permissions"], instant(info["expiration"])) == ({"createBucket": True}, FUTURE)
    assert result(run, ONE)["access_key_id"] == info["accessKeyId"]
    assert info["secretAccessKey"] not in json.dumps([predicted, run])
    again = cluster.run(wanted)
    assert not again["changed"]
    assert cluster.calls == ["ListKeys", "GetKeyInfo"]
    assert info["secretAccessKey"] not in json.dumps(again)


def test_a_lost_secret_is_written_again(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run(made(tmp_path))
    (tmp_path / "secret").unlink()
    run = cluster.run(made(tmp_path))
    assert run["diff"]["before"][ONE]["secret_file"] == "missing"
    assert (tmp_path / "secret").read_text(encoding="ascii") == only_key(cluster)["secretAccessKey"]
    assert not cluster.run(made(tmp_path))["changed"]


def test_an_answer_that_is_lost_when_the_key_is_made_costs_nothing(cluster: Cluster, tmp_path: Path) -> None:
    cluster.lost["CreateKey"] = 1
    run = cluster.run(made(tmp_path))
    assert not run["failed"], run["msg"]
    assert (tmp_path / "secret").read_text(encoding="ascii") == only_key(cluster)["secretAccessKey"]
    assert not cluster.run(made(tmp_path))["changed"]


def test_a_crash_before_the_file_was_written_is_repaired(cluster: Cluster, tmp_path: Path) -> None:
    cluster.client().post("CreateKey", {"name": "fediversity/one"})
    assert actions(cluster.run(made(tmp_path))) == {ONE: "update"}
    assert (tmp_path / "secret").read_text(encoding="ascii") == only_key(cluster)["secretAccessKey"]


def test_a_file_that_others_may_read_is_protected(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run(made(tmp_path))
    (tmp_path / "secret").chmod(0o644)
    run = cluster.run(made(tmp_path))
    assert run["diff"]["before"][ONE]["secret_file"] == "readable for others"
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert not cluster.run(made(tmp_path))["changed"]


@pytest.mark.parametrize("content", ["sentinel-other-secret", "", "line\nline", "\u00e9", "x" * 5000])
def test_another_file_is_not_overwritten(cluster: Cluster, tmp_path: Path, content: str) -> None:
    (tmp_path / "secret").write_text(content, encoding="utf-8")
    for wanted in (made(tmp_path), key(secret_file=str(tmp_path / "secret"))):
        run = cluster.run(wanted)
        assert actions(run) == {ONE: "refused"}
        assert "secret_file" in result(run, ONE)["msg"]
        assert "sentinel" not in json.dumps(run)
    assert (tmp_path / "secret").read_text(encoding="utf-8") == content
    assert cluster.client().get("ListKeys") == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("relative/secret", "not absolute"),
        ("{}/none/secret", "Make the directory first"),
        ("{}", "no file with a secret"),
        ("{}/link", "cannot be used"),
    ],
)
def test_paths_that_cannot_be_files_are_refused_before_a_key_is_made(
    cluster: Cluster, tmp_path: Path, path: str, words: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    wanted = DesiredKey("fediversity/one", secret_file=path.format(tmp_path))
    run = cluster.run(wanted, key("two", 2))
    assert words in result(run, ONE)["msg"]
    assert actions(run) == {ONE: "refused", "key fediversity/two": "create"}
    assert len(cluster.client().get("ListKeys")) == 1


def test_a_directory_that_vanishes_stops_the_key_from_being_made(cluster: Cluster, tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    directory.mkdir()
    cluster.before = lambda endpoint: directory.rmdir() if endpoint == "ImportKey" else None
    run = cluster.run(key("two", 2), made(directory))
    assert "the file cannot be used" in result(run, ONE)["msg"]
    assert "CreateKey" not in cluster.calls


def test_a_full_disk_stops_the_key_from_being_made(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    run = cluster.run(made(tmp_path), key("two", 2))
    assert "No space left on device" in result(run, ONE)["msg"]
    assert "CreateKey" not in cluster.calls
    assert list(tmp_path.iterdir()) == []
    assert not result(run, "key fediversity/two")["failed"]


@pytest.mark.parametrize(
    "text", ["2099-01-01T01:00:00+01:00", "2099-01-01t00:00:00z", "2099-01-01T00:00:00.000000001Z"]
)
def test_instants_are_compared_not_their_texts(text: str) -> None:
    assert instant(text) == FUTURE


def test_two_keys_do_not_share_a_file(cluster: Cluster, tmp_path: Path) -> None:
    run = cluster.run(made(tmp_path), DesiredKey("fediversity/two", secret_file=str(tmp_path / "secret")))
    assert set(actions(run).values()) == {"refused"}
    assert "is also the file of key fediversity/two" in result(run, ONE)["msg"]


def test_a_key_whose_secret_would_be_lost_is_not_made(cluster: Cluster) -> None:
    run = cluster.run(DesiredKey("fediversity/one", create_bucket=True))
    assert "its secret would be lost" in result(run, ONE)["msg"]
    cluster.client().post("CreateKey", {"name": "fediversity/one"})
    assert actions(cluster.run(DesiredKey("fediversity/one", create_bucket=True))) == {ONE: "update"}
    assert only_key(cluster)["permissions"] == {"createBucket": True}


def test_an_imported_secret_is_in_its_file_before_the_key_exists(cluster: Cluster, tmp_path: Path) -> None:
    wanted = key(secret_file=str(tmp_path / "secret"))
    cluster.before = lambda endpoint: None if endpoint != "ImportKey" else check_file(tmp_path, wanted)
    run = cluster.run(wanted)
    assert not run["failed"], run["msg"]
    again = cluster.run(wanted)
    assert not again["changed"]
    assert cluster.calls == ["ListKeys"]


def check_file(path: Path, wanted: DesiredKey) -> None:
    assert (path / "secret").read_text(encoding="ascii") == wanted.secret


def test_create_bucket_is_given_and_taken_or_left(cluster: Cluster) -> None:
    for wanted, now in ((None, False), (True, True), (None, True), (False, False)):
        cluster.run(key(create_bucket=wanted))
        assert only_key(cluster)["permissions"] == {"createBucket": now}
        assert not cluster.run(key(create_bucket=wanted))["changed"]


def test_expiration_is_set_moved_removed_or_left(cluster: Cluster) -> None:
    for wanted, now in ((FUTURE, FUTURE), (None, FUTURE), (PAST, PAST), (FUTURE, FUTURE), (NEVER, None)):
        run = cluster.run(key(expiration=wanted))
        assert not run["failed"], run["msg"]
        assert expiration_from(only_key(cluster)) == (now or NEVER)
        assert not cluster.run(key(expiration=wanted))["changed"]
    cluster.run(key(expiration=PAST))
    assert only_key(cluster)["expired"]
    assert actions(cluster.run(key())) == {ONE: "update"}
    assert not only_key(cluster)["expired"]


@pytest.mark.parametrize(
    ("expiration", "words"),
    [
        ("tomorrow", "'tomorrow' is no instant"),
        ("0001-01-01T00:00:00+10:00", "is no instant"),
        ("9999-12-31T23:59:59-10:00", "is no instant"),
        (CONTRADICTION, "exclude each other"),
    ],
)
def test_bad_expirations_are_refused(cluster: Cluster, expiration: str, words: str) -> None:
    run = cluster.run(key(expiration=expiration))
    assert f"{ONE}, expiration" in result(run, ONE)["msg"]
    assert words in result(run, ONE)["msg"]


def test_names_of_export_keys_are_refused(cluster: Cluster) -> None:
    run = cluster.run(key("export-media"), key("export-x_y_z", 2))
    assert actions(run) == {"key fediversity/export-media": "refused", "key fediversity/export-x_y_z": "create"}


def test_a_scope_without_getkeyinfo_fails_only_who_needs_it(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run(key("two", 2))
    cluster.client().post("CreateKey", {"name": "fediversity/one"})
    scope = ["ListKeys", "ImportKey", "UpdateKey"]
    cluster.token = cluster.client().post("CreateAdminToken", {"scope": scope})["secretToken"]
    run = cluster.run(made(tmp_path), key("two", 2, expiration=FUTURE))
    assert "scope lacks GetKeyInfo" in result(run, ONE)["msg"]
    assert actions(run) == {ONE: "refused", "key fediversity/two": "update"}
