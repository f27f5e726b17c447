# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host image's recipe: what is asked of apt, and what makes another image."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lab import image
from lab.errors import LabError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def apt_prints(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(image, "suite", lambda: "bookworm")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: subprocess.CompletedProcess([], 0, text))


def test_sources_are_the_machines_own_without_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    apt_prints(
        monkeypatch,
        "http://mirror.example/debian/|bookworm|main|/keys/own.gpg|Debian\n"
        "http://mirror.example/debian/|bookworm|main|/keys/own.gpg|Debian\n"
        "http://mirror.example/debian/|bookworm|contrib|/keys/own.gpg|Debian\n"
        "http://mirror.example/debian/|bookworm-updates|main|$(SIGNED_BY)|$(ORIGIN)\n"
        "http://mirror.example/debian/|bookworm-backports|main|/keys/own.gpg|Debian Backports\n"
        "https://vendor.example/apt/|nodistro|main|/keys/vendor.gpg|Vendor\n"
        "https://vendor.example/apt/|bookworm|main|/keys/vendor.gpg|Vendor\n",
    )
    lines = image._apt_sources().splitlines()
    without_keys = [
        line.replace("[signed-by=/keys/own.gpg] ", "").replace(f"[signed-by={KEYRING}] ", "") for line in lines
    ]
    assert without_keys == [
        "deb http://mirror.example/debian/ bookworm main",
        "deb http://mirror.example/debian/ bookworm-updates main",
    ]


def test_no_source_for_the_suite_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    apt_prints(monkeypatch, "https://vendor.example/apt/|nodistro|main|/keys/vendor.gpg|Vendor\n")
    with pytest.raises(LabError, match="no source for bookworm"):
        image._apt_sources()


def test_how_the_machine_fetches_is_taken_over_but_not_its_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    apt_prints(
        monkeypatch,
        'Acquire::http::Proxy "http://proxy.example:3128";\nAcquire::Check-Valid-Until "false";\n'
        'DPkg::Post-Invoke:: "rm -rf /";\nAPT::Update::Post-Invoke-Success:: "true";\n',
    )
    assert (
        image._apt_options()
        == 'Acquire::http::Proxy "http://proxy.example:3128";\nAcquire::Check-Valid-Until "false";\n'
    )


def test_another_package_list_is_another_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = image.location(tmp_path)
    assert before == image.location(tmp_path)
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "hello"))
    assert image.location(tmp_path) != before


def test_an_image_in_the_cache_is_not_built_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image.location(tmp_path).mkdir()
    monkeypatch.setattr(image, "_build", lambda *_arguments: pytest.fail("built"))
    assert image.ensure(tmp_path, print) == image.location(tmp_path)


def test_a_failed_build_leaves_no_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(root: Path, _progress: object) -> None:
        (root / "half").touch()
        raise LabError("no network")

    monkeypatch.setattr(image, "_build", fail)
    with pytest.raises(LabError):
        image.ensure(tmp_path, print)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
