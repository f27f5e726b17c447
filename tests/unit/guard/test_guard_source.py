# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the options flake, file and attr mean, what may not be in them, and what is made of Nix' answers."""

from __future__ import annotations

import os
import subprocess
from pathlib import PurePath
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import source
from hypothesis import assume, given
from hypothesis import strategies as st

SYSTEM = "/nix/store/11111111111111111111111111111111-nixos-system-web"


def resolve(path: str) -> str:
    return os.path.normpath(os.path.join("/play", path))


def want(machine: str = "web1", **arguments: Any) -> source.Wanted | None:
    return source.wanted(arguments, machine, resolve)


@pytest.mark.parametrize(
    ("arguments", "kind", "reference", "attribute"),
    [
        ({"flake": "."}, "flake", "/play", 'nixosConfigurations."web1".config.system.build.toplevel'),
        ({"flake": "./a", "attr": "b.c"}, "flake", "/play/a", 'nixosConfigurations."b.c".config.system.build.toplevel'),
        (
            {"flake": "git+https://example.org/x.git?ref=main&dir=sub"},
            "flake",
            "git+https://example.org/x.git?ref=main&dir=sub",
            'nixosConfigurations."web1".config.system.build.toplevel',
        ),
        ({"file": "sites"}, "file", "/play/sites", "config.system.build.toplevel"),
        ({"file": "/etc/a b.nix", "attr": "m.web"}, "file", "/etc/a b.nix", "m.web.config.system.build.toplevel"),
        ({"file": "x", "attr": 'm."a.b"'}, "file", "/play/x", 'm."a.b".config.system.build.toplevel'),
    ],
)
def test_the_attributes_are_those_of_nixos_rebuild(
    arguments: dict[str, str], kind: str, reference: str, attribute: str
) -> None:
    wanted = want(**arguments)
    assert wanted is not None
    assert (wanted.kind, wanted.reference, wanted.attribute) == (kind, reference, attribute)
    assert (wanted.directory is None) == ("https:" in reference)


def test_a_store_path_is_not_built() -> None:
    assert want(system=SYSTEM) is None


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"flake": "--impure"}, "flake"),
        ({"flake": "./x#y"}, "flake"),
        ({"flake": "github:a/b c"}, "flake"),
        ({"flake": "/srv/x?dir=/etc"}, "flake"),
        ({"flake": "$(id)"}, "flake"),
        ({"flake": ".", "attr": 'a".b'}, "attr"),
        ({"flake": ".", "attr": "${a}"}, "attr"),
        ({"flake": ".", "attr": "a%22b"}, "attr"),
        ({"flake": ".", "attr": "-a"}, "attr"),
        ({"flake": ".", "attr": ""}, "attr"),
        ({"file": "x", "attr": 'a"b'}, "attr"),
        ({"file": "x", "attr": '"${a}"'}, "attr"),
        ({"file": "x", "attr": "a..b"}, "attr"),
        ({"file": "x", "attr": "--eval"}, "attr"),
        ({"file": "x\ny"}, "file"),
        ({"attr": "web"}, "attr"),
    ],
)
def test_what_nix_could_read_differently_is_refused(arguments: dict[str, str], where: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        want(**arguments)
    assert caught.value.where == where


def test_a_machine_whose_name_cannot_be_an_attribute_needs_attr() -> None:
    with pytest.raises(InvalidInput, match="cannot be a name in nixosConfigurations"):
        want('web"1', flake=".")
    assert want('web"1', flake=".", attr="web1") is not None


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=30))
def test_names_of_files_stay_single_shell_words(name: str) -> None:
    assume(name not in {".", ".."})
    wanted = source.Wanted("file", f"/srv/{name}/{name}", "config", "web1")
    word = source.reference_there(wanted, PurePath("/srv", name))
    command = ["/bin/sh", "-c", f"printf '%s' {word}", "run", "/var/tmp/x"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=10)
    assert done.stdout.decode() == f"/var/tmp/x/tree/{name}/{name}"


def test_the_copy_of_a_flake_is_not_searched_for_git() -> None:
    wanted = want(flake="/srv/fleet")
    assert wanted is not None
    assert source.reference_there(wanted, wanted.directory) == 'path:"$1"/tree/source'
    assert source.reference_there(wanted, None) == "/srv/fleet"


@pytest.mark.parametrize(("machine", "name"), [("web1", "web1"), ("web1.example.org", "web1.example.org")])
def test_roots_are_named_after_machines(machine: str, name: str) -> None:
    assert source.root_name(machine) == name


@pytest.mark.parametrize("machine", ["../../etc/passwd", ".", "..", "a b", "", "fd99::1", "$(id)"])
def test_roots_of_odd_machines_are_file_names_too(machine: str) -> None:
    assert source.root_name(machine).isalnum()


@pytest.mark.parametrize("kind", ["file", "flake"])
def test_the_shell_texts_are_sound(kind: Any) -> None:
    wanted = source.Wanted(kind, "/srv/it's", 'a."b c".config', "web1")
    for script in (source.foresee_script, source.realise_script):
        text = script(wanted, source.reference_there(wanted, wanted.directory))
        done = subprocess.run(["sh", "-n"], input=text, text=True, check=False, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")
    assert "--realise" not in source.foresee_script(wanted, "x")


@pytest.mark.parametrize(("said"), ["", "a b", f"{SYSTEM}\n{SYSTEM}2", "/etc/passwd", f"{SYSTEM}/bin"])
def test_only_one_store_path_is_an_answer(said: str) -> None:
    with pytest.raises(BackendError, match="one store path"):
        source.system_path(said)
    assert source.system_path(f"{SYSTEM}\n") == SYSTEM


TRACE = """\
warning: Git tree '/srv' is dirty
error:
       … while calling the 'head' builtin
         at /nix/store/x/lib.nix:1573:11:
         1572|         || pred here
             |           ^

       (stack trace truncated; use '--show-trace' to show the full, detailed trace)

       \x1b[31;1merror:\x1b[0m attribute 'missing' missing
       at /var/tmp/fediversity-build.Ab3dE6gH9i/tree/conf/default.nix:3:5:
            2| {
            3|   x = y.missing;
             |       ^
"""
BUILDER = """\
building '/nix/store/a-x.drv'...
error: builder for '/nix/store/a-x.drv' failed with exit code 3;
       last 2 log lines:
       > one
       > two
       For full logs, run 'nix log /nix/store/a-x.drv'.
error: 1 dependencies of derivation '/nix/store/b-system.drv' failed to build
"""
NEWER_BUILDER = """\
error: Cannot build '/nix/store/a-x.drv'.
       Reason: builder failed with exit code 3.
error: Cannot build '/nix/store/b-system.drv'.
       Reason: 1 dependency failed.
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "error: no such machine here\n(use '--show-trace' to show detailed location information)\n",
            "no such machine here",
        ),
        (TRACE, "attribute 'missing' missing\nat /srv/conf/default.nix:3:5:"),
        (
            BUILDER,
            "builder for '/nix/store/a-x.drv' failed with exit code 3;\nlast 2 log lines:\n> one\n> two\n"
            "For full logs, run 'nix log /nix/store/a-x.drv'",
        ),
        (NEWER_BUILDER, "Cannot build '/nix/store/a-x.drv'.\nReason: builder failed with exit code 3"),
        ("error: cannot fetch 'https://joe:sesame@example.org/x'", "cannot fetch 'https://***@example.org/x'"),
        ("one\ntwo\n", "one\ntwo"),
        ("error: 1 dependencies of derivation 'x' failed to build", "1 dependencies of derivation 'x' failed to build"),
    ],
)
def test_errors_are_nix_own_without_its_stack(text: str, expected: str) -> None:
    assert source.nix_error(text, "/srv") == expected


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("building '/nix/store/a-x.drv'...\n", "building '/nix/store/a-x.drv'..."),
        (
            "copying path '/nix/store/a' from 'https://joe:pw@c.org'...",
            "copying path '/nix/store/a' from 'https://***@c.org'...",
        ),
        ("these 12 derivations will be built:\n", "these 12 derivations will be built"),
        ("  /nix/store/a-x.drv\n", ""),
        ("warning: you did not specify '--add-root'", ""),
    ],
)
def test_progress_is_what_a_person_wants_to_know(line: str, told: str) -> None:
    assert source.news(line) == told


def test_credentials_of_a_url_are_not_shown() -> None:
    wanted = want(flake="git+https://joe:sesame@example.org/x")
    assert wanted is not None
    assert "sesame" not in source.shown(wanted)
