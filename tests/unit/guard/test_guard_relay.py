# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One stream from host to host: what is asked, what flows, and that a failure of either side ends the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, Unreachable
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import relay
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.build import CONTROLLER, BuildHost
from build_hosts import Farm

LIBRARY = "/nix/store/00000000000000000000000000000000-library"
SHARED = "/nix/store/22222222222222222222222222222222-shared"
SYSTEM = "/nix/store/11111111111111111111111111111111-system"
ORIGIN = f"""
case $* in
*--requisites*) printf '%s\\n' {SHARED} {LIBRARY} {SYSTEM} ;;
*--export*) shift; for path; do echo "nar of $path"; done ;;
esac
"""
TARGET = f"""
case $* in
*--print-invalid*) shift 2; for path; do [ "$path" = {SHARED} ] || echo "$path"; done ;;
*--import*) cat >$here/imported ;;
esac
"""


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def test_what_is_missing_flows_once_and_in_order(farm: Farm) -> None:
    origin, target = farm.host("origin", nix_store=ORIGIN), farm.host("target", nix_store=TARGET)
    told: list[str] = []
    relay.relay(SYSTEM, origin, target, told.append)
    assert farm.text("target/imported") == f"nar of {LIBRARY}\nnar of {SYSTEM}\n"
    assert farm.said("origin") == [
        f"nix-store --query --requisites {SYSTEM}",
        f"nix-store --export {LIBRARY} {SYSTEM}",
    ]
    assert farm.said("target") == [
        f"nix-store --check-validity --print-invalid {SHARED} {LIBRARY} {SYSTEM}",
        "nix-store --import",
    ]
    assert told == ["copying 2 of 3 store paths from origin"]
    assert farm.leftovers("origin") == []


def test_nothing_flows_when_nothing_is_missing(farm: Farm) -> None:
    origin, target = farm.host("origin", nix_store=ORIGIN), farm.host("target", nix_store="true")
    relay.relay(SYSTEM, origin, target, lambda text: None)
    assert len(farm.said("origin")) == len(farm.said("target")) == 1


@pytest.mark.parametrize(
    ("origin", "target", "text"),
    [
        # the other side would go on for ever
        ("echo no such path >&2; exit 1", "sleep 600", "origin could not export store paths .*: no such path"),
        ("while :; do echo x; done", "echo disk full >&2; exit 1", "target could not import store paths .*: disk full"),
        ("sleep 600", "echo not trusted >&2; exit 1", "target could not import .*: not trusted"),
    ],
)
def test_a_failure_of_either_side_ends_the_other(farm: Farm, origin: str, target: str, text: str) -> None:
    hosts = [
        farm.host("origin", nix_store=ORIGIN.replace("shift; for path; do", f"{origin}; for path; do")),
        farm.host("target", nix_store=TARGET.replace("cat >$here/imported", target)),
    ]
    with pytest.raises(BackendError, match=text):
        relay.relay(SYSTEM, hosts[0], hosts[1], lambda text: None)
    assert farm.leftovers("origin") == []


def test_a_host_that_is_not_there(farm: Farm) -> None:
    gone = BuildHost("gone", ("/bin/sh", "-c", "echo no route >&2; exit 255"))
    with pytest.raises(Unreachable, match="gone could not be reached to list the closure: no route"):
        relay.relay(SYSTEM, gone, farm.host("target", nix_store=TARGET), lambda text: None)
    with pytest.raises(Unreachable, match="gone could not be reached to tell which"):
        relay.relay(SYSTEM, farm.host("origin", nix_store=ORIGIN), gone, lambda text: None)


def test_the_way_depends_on_where_the_system_was_built(farm: Farm) -> None:
    origin, target = farm.host("origin", nix_store=ORIGIN), farm.host("target", nix_store=TARGET)
    copies: list[str] = []

    def from_here() -> None:
        copies.append("here")

    for place in (target, CONTROLLER, origin):
        copy = relay.copier(SYSTEM, place, target, from_here, copies.append)
        copies.append(place.name)
        copy()
    assert copies == ["target", CONTROLLER.name, "here", "origin", "copying 2 of 3 store paths from origin"]
