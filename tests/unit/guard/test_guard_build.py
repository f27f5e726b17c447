# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Building on a host: what is sent, what runs there, what comes back, and that nothing stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    InvalidInput,
    MissingCommand,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import build, parcel
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.build import BuildHost
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.copy import SshTarget
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import Clock
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.source import TOPLEVEL, Wanted
from build_hosts import Farm

SYSTEM = "/nix/store/11111111111111111111111111111111-nixos-system-web"
DERIVATION = f"{SYSTEM}.drv"
INSTANTIATE = f'cp -R "$4" "$here/got"; ln -s {DERIVATION} "$2"; echo "$2"'
STORE = f"""
case $* in
*--query*) echo {SYSTEM} ;;
*--realise*)
    echo "building '/nix/store/a-x.drv'..." >&2
    echo "building '/nix/store/b-x.drv'..." >&2
    ln -s {SYSTEM} "$5" ;;
esac
"""


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    directory = tmp_path / "it's a fleet"
    (directory / "sub/.git").mkdir(parents=True)
    (directory / "default.nix").write_text("{ }", encoding="utf-8")
    (directory / "sub/.git/config").write_text("secret", encoding="utf-8")
    (directory / "sub/run.sh").write_text("true", encoding="utf-8")
    (directory / "sub/run.sh").chmod(0o555)
    (directory / "link").symlink_to("sub/run.sh")
    (directory / "result").symlink_to("/nix/store/x")
    (directory / "result-doc").symlink_to("/nix/store/y")
    (directory / "sub/result").write_text("mine", encoding="utf-8")
    return directory


def file_of(directory: Path, name: str = "") -> Wanted:
    return Wanted("file", str(directory / name), f"web.{TOPLEVEL}", "web1")


def test_a_directory_is_sent_built_and_removed(farm: Farm, configuration: Path) -> None:
    host = farm.host("b", nix_instantiate=INSTANTIATE, nix_store=STORE)
    told: list[str] = []
    assert build.realise(file_of(configuration), host, told.append, Clock(lambda: 0.0)) == SYSTEM
    assert farm.leftovers("b") == []
    got = farm.directory / "b/got"
    assert sorted(str(path.relative_to(got)) for path in got.rglob("*")) == [
        "default.nix",
        "link",
        "sub",
        "sub/result",
        "sub/run.sh",
    ]
    assert (got / "sub/run.sh").stat().st_mode & 0o100
    assert (got / "link").is_symlink()
    root = farm.directory / "home-b/.local/state/fediversity/systems/web1"
    assert str(root.readlink()) == SYSTEM
    instantiate, store = farm.said("b")
    assert instantiate.endswith(f"tree/it's a fleet -A web.{TOPLEVEL}")
    assert store == f"nix-store -Q --realise {DERIVATION} --add-root {root} --indirect"
    assert told == [f"building web of {configuration} on b", "building '/nix/store/a-x.drv'..."]


def test_a_file_is_found_in_the_directory_that_was_sent(farm: Farm, configuration: Path) -> None:
    host = farm.host("b", nix_instantiate=INSTANTIATE, nix_store=STORE)
    build.realise(file_of(configuration, "default.nix"), host, lambda text: None)
    assert "/tree/it's a fleet/default.nix -A" in farm.said("b")[0]
    assert farm.text("b/got") == "{ }"


def test_a_link_to_a_directory_is_followed(farm: Farm, configuration: Path) -> None:
    host = farm.host("b", nix_instantiate=INSTANTIATE, nix_store=STORE)
    link = farm.directory / "link"
    link.symlink_to(configuration)
    assert build.foresee(file_of(link), host, lambda text: None) == SYSTEM
    assert farm.text("b/got/default.nix") == "{ }"


def test_foreseeing_builds_nothing(farm: Farm, configuration: Path) -> None:
    host = farm.host("b", nix_instantiate=INSTANTIATE, nix_store=STORE)
    assert build.foresee(file_of(configuration), host, lambda text: None) == SYSTEM
    assert farm.said("b")[1:] == [f"nix-store --query --outputs {DERIVATION}"]


def test_flakes(farm: Farm, configuration: Path) -> None:
    host = farm.host("b", nix=f"printf %s {DERIVATION}", nix_store=STORE)
    start = "nix --extra-experimental-features nix-command flakes eval --raw"
    for reference, there in ((str(configuration), "tree/source"), ("github:a/b?ref=c", " github:a/b?ref=c")):
        build.realise(Wanted("flake", reference, TOPLEVEL, "web1"), host, lambda text: None)
        assert farm.said("b")[0].startswith(f"{start} -- ")
        assert farm.said("b")[0].endswith(f"{there}#{TOPLEVEL}.drvPath")
        (farm.directory / "b/said").unlink()
        (farm.directory / "home-b/.local/state/fediversity/systems/web1").unlink()
        build.foresee(Wanted("flake", reference, TOPLEVEL, "web1"), host, lambda text: None)
        assert farm.said("b")[0].startswith(f"{start} --no-write-lock-file -- ")
        (farm.directory / "b/said").unlink()


def test_of_a_repository_only_what_git_tracks_is_sent(tmp_path: Path) -> None:
    for command in (["init", "-q"], ["config", "core.quotePath", "true"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    flake = tmp_path / "fleet"
    flake.mkdir()
    (flake / "secret.key").touch()
    (flake / "flake.nix").touch()
    with pytest.raises(InvalidInput, match="git does not track"):
        parcel.tracked_files(flake)
    (flake / "größe").touch()
    subprocess.run(["git", "-C", flake, "add", "flake.nix", "größe"], check=True)
    assert parcel.tracked_files(flake) == ("flake.nix", "größe")


def test_the_controller_sends_itself_nothing(farm: Farm, configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    farm.host("c", nix_instantiate=INSTANTIATE.replace("$4", "/dev/null"), nix_store=STORE)
    monkeypatch.setenv("PATH", str(farm.directory / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(farm.directory))
    assert build.realise(file_of(configuration), build.CONTROLLER, lambda text: None) == SYSTEM
    assert f"--indirect {configuration} -A" in farm.said("c")[0]
    assert str((farm.directory / "fediversity/systems/web1").readlink()) == SYSTEM


@pytest.mark.parametrize(
    ("programs", "error", "text"),
    [
        ({}, MissingCommand, "Nix is not installed on b"),
        (
            {"nix_instantiate": 'echo "error: undefined at $4/default.nix:1" >&2; exit 1', "nix_store": STORE},
            BackendError,
            r"web of .* cannot be evaluated on b: undefined at {configuration}/default.nix:1$",
        ),
        (
            {"nix_instantiate": INSTANTIATE, "nix_store": "echo error: disk full >&2; exit 100"},
            BackendError,
            "cannot be built on b: disk full",
        ),
        ({"tar": "echo no space >&2; exit 2"}, BackendError, r"b could not build .* \(code 2\): no space"),
        ({"nix_instantiate": INSTANTIATE, "nix_store": f"{STORE}\nrm $5"}, BackendError, r"code 1\)"),
    ],
)
def test_failures(farm: Farm, configuration: Path, programs: dict[str, str], error: type[Exception], text: str) -> None:
    host = farm.host("b", **programs)
    with pytest.raises(error, match=text.replace("{configuration}", str(configuration))):
        build.realise(file_of(configuration), host, lambda text: None)
    assert farm.leftovers("b") == []


def test_a_host_that_cannot_be_reached(farm: Farm, configuration: Path) -> None:
    host = BuildHost("b", ("/bin/sh", "-c", "echo ssh: no route to host >&2; exit 255"))
    with pytest.raises(Unreachable, match=r"b could not be reached to build .*: ssh: no route to host"):
        build.realise(file_of(configuration), host, lambda text: None)


def test_a_configuration_that_is_not_there_or_too_large(
    farm: Farm, configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = farm.host("b")
    with pytest.raises(InvalidInput, match="does not exist"):
        build.realise(file_of(configuration, "none"), host, lambda text: None)
    monkeypatch.setattr(parcel, "LIMIT", 2)
    with pytest.raises(InvalidInput, match="would be sent to the build host"):
        build.realise(file_of(configuration), host, lambda text: None)


def test_an_interrupted_build_ends_and_leaves_nothing(farm: Farm, configuration: Path) -> None:
    program = "echo \"building 'x'\" >&2; sleep 600"
    host = farm.host("b", nix_instantiate=INSTANTIATE, nix_store=program)

    def interrupt(text: str) -> None:
        if "'x'" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.realise(file_of(configuration), host, interrupt)
    assert farm.leftovers("b") == []


def test_the_command_line_holds_nothing_of_the_task(configuration: Path) -> None:
    host = build.over_ssh("b", SshTarget("/usr/bin/ssh", "10.0.0.1", ("-o", "User=root")))
    words = host.words(build.RECEIVE)
    assert words[:-1] == ["/usr/bin/ssh", "-o", "ControlMaster=no", "-o", "User=root", "10.0.0.1"]
    done = subprocess.run(["sh", "-n"], input=words[-1], text=True, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
