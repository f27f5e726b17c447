# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""secret_files: the shell part for real in a directory, and that no content ever shows."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import files
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.files import Difference, SecretFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NONCE = "0123456789abcdef"
ME = {"owner": str(os.getuid()), "group": str(os.getgid())}
SENTINEL = "sentinel-7c0a$(id)'\"\\"


def shell(script: bytes) -> str:
    done = subprocess.run(["/bin/sh", "-c", 'eval "$(cat)"'], input=script, capture_output=True, check=True, timeout=60)
    return done.stdout.decode()


def deliver(wanted: list[SecretFile], swept: str = "") -> list[Difference]:
    """What the action plugin does, without a connection."""
    answer = shell(files.look_script(wanted, swept, NONCE))
    files.check_answer(answer)
    compared, surplus = files.differences(wanted, answer, NONCE)
    stale = {item.path for item in compared if item.action in {"created", "updated"}}
    files.check_answer(shell(files.write_script([file for file in wanted if file.path in stale], surplus, swept)))
    return compared


def test_created_then_unchanged_then_repaired(tmp_path: Path) -> None:
    path = tmp_path / "a/b/key"
    wanted = [SecretFile(str(path), SENTINEL, **ME)]
    assert deliver(wanted) == [Difference(str(path), "created")]
    assert path.read_text(encoding="utf-8") == SENTINEL
    assert [item.stat().st_mode & 0o777 for item in (path.parent, path.parent.parent, path)] == [0o700, 0o700, 0o400]
    assert deliver(wanted) == [Difference(str(path), "unchanged")]
    path.chmod(0o644)
    path.write_text("x", encoding="utf-8")
    assert deliver(wanted) == [Difference(str(path), "updated", ("content", "mode"))]
    assert [item.name for item in path.parent.iterdir()] == ["key"]


def test_a_symbolic_link_is_replaced_and_its_target_left(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("other", encoding="utf-8")
    (tmp_path / "key").symlink_to(target)
    deliver([SecretFile(str(tmp_path / "key"), SENTINEL, **ME)])
    assert not (tmp_path / "key").is_symlink()
    assert target.read_text(encoding="utf-8") == "other"


def test_purge_removes_strangers_and_empty_directories_only(tmp_path: Path) -> None:
    swept = tmp_path / "secrets"
    for name in ("old/key", "kept/stray name", "kept/key"):
        (swept / name).parent.mkdir(parents=True, exist_ok=True)
        (swept / name).write_text("x", encoding="utf-8")
    (tmp_path / "outside").touch()
    compared = deliver([SecretFile(str(swept / "kept/key"), "new", **ME)], str(swept))
    assert [(Path(item.path).name, item.action) for item in compared] == [
        ("key", "updated"),
        ("stray name", "removed"),
        ("key", "removed"),
    ]
    assert sorted(str(item.relative_to(tmp_path)) for item in tmp_path.rglob("*")) == [
        "outside",
        "secrets",
        "secrets/kept",
        "secrets/kept/key",
    ]


@pytest.mark.parametrize("prepare", ["directory", "owner", "not writable"])
def test_failures_name_the_path_and_no_content(tmp_path: Path, prepare: str) -> None:
    path = tmp_path / "key"
    owner = {**ME, "owner": "nobody-of-that-name"} if prepare == "owner" else ME
    if prepare == "directory":
        path.mkdir()
    if prepare == "not writable":
        path = tmp_path / "file/key"
        (tmp_path / "file").touch()
    with pytest.raises(BackendError) as caught:
        deliver([SecretFile(str(path), SENTINEL, **owner)])
    assert "key" in str(caught.value) or "file" in str(caught.value)
    assert "sentinel" not in str(caught.value)
    assert list(tmp_path.glob(".*")) == []


def test_an_answer_that_breaks_off_is_no_success() -> None:
    with pytest.raises(BackendError, match="incomplete"):
        files.check_answer("@file=abc\n")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200))
def test_every_content_arrives_as_it_is(tmp_path: Path, content: str) -> None:
    wanted = [SecretFile(str(tmp_path / "key"), content, **ME)]
    deliver(wanted)
    assert (tmp_path / "key").read_bytes() == content.encode()
    assert deliver(wanted)[0].action == "unchanged"


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/a/./b", "/a b", "/a\n/b", "/", "/a//b", "/a/$(id)", "/a/"])
def test_surprising_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        files.check_files([SecretFile(path, SENTINEL)], "")
    assert "sentinel" not in str(caught.value)


def test_other_refusals() -> None:
    one = SecretFile("/a/b", SENTINEL)
    for wanted, directory in (
        ([one, one], ""),
        ([one], "/other"),
        ([one], "/a/b/c"),
        ([SecretFile("/a/b", "", owner="a;b")], ""),
        ([SecretFile("/a/b", "", mode="u+s")], ""),
    ):
        with pytest.raises(InvalidInput):
            files.check_files(wanted, directory)
    files.check_files([one], "/a")
    assert files.swept_directory("/a", False) == ""
    assert files.swept_directory("/a/b", True) == "/a/b"
    for directory in ("", "/", "/etc"):
        with pytest.raises(InvalidInput):
            files.swept_directory(directory, True)


def test_contents_are_in_no_printed_form() -> None:
    wanted = SecretFile("/a/b", SENTINEL)
    assert "sentinel" not in repr(wanted)
    compared = [
        Difference("/a/b", "updated", ("content",)),
        Difference("/a/c", "removed"),
        Difference("/a/d", "unchanged"),
    ]
    assert files.describe(compared) == "~ /a/b (content differs)\n- /a/c\n"
    assert b"sentinel" not in files.write_script([wanted], [], "")
