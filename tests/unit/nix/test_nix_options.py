# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that the modules set exist in NixOS, and the stand-in declares none that NixOS does not have.

``nixos-options.json`` is a table of real option names and types, read from the NixOS modules.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nix_fleets import HOSTILE, fleet, instance, machine

HERE = Path(__file__).parent
TABLE = HERE / "nixos-options.json"
NIXPKGS = HERE.parents[1] / "lab/nixpkgs"
UPSTREAM = HERE.parents[3] / "shared/reference/nixos-options.json"

SETTINGS = {
    "mastodon": {"title": HOSTILE, "description": "d", "language": "de", "media_retention_days": 9},
    "peertube": {
        "title": HOSTILE,
        "description": "d",
        "registrations": "approval",
        "transcoding": False,
        "language": "de",
        "video_quota_gigabytes": 5,
    },
    "pixelfed": {
        "title": HOSTILE,
        "description": "d",
        "registrations": "closed",
        "language": "de",
        "max_photo_megabytes": 15,
        "max_album_length": 4,
    },
}

Evaluate = Callable[..., Any]


@pytest.fixture
def evaluate(
    nix: Callable[..., subprocess.CompletedProcess[str]], write_fleet: Callable[[Any], str]
) -> Callable[[str], Any]:
    """Values of the table's options for a machine with all three applications, plus a Nix attribute set."""
    everything = machine(
        "all",
        *(instance("alice", f"d-{name}", name, settings=settings) for name, settings in SETTINGS.items()),
    )
    path = write_fleet(fleet(everything))

    def run(extra: str = "{ }") -> Any:
        done = nix(
            *("nix-instantiate", "--eval", "--strict", "--json", str(HERE / "option_table.nix")),
            *("--argstr", "nixpkgs", str(NIXPKGS), "--argstr", "table", str(TABLE), "--argstr", "fleet", path),
            *("--arg", "extra", extra),
        )
        if done.returncode != 0:
            raise ValueError(done.stderr)
        return json.loads(done.stdout)

    return run


def test_every_option_that_the_modules_set_exists_with_that_type(evaluate: Evaluate) -> None:
    config = evaluate()
    services = config["services"]
    assert services["mastodon"]["localDomain"] == "d-mastodon.alice.fedi.test"
    assert services["mastodon"]["mediaAutoRemove"]["olderThanDays"] == 9
    assert services["mastodon"]["extraConfig"]["DEFAULT_LOCALE"] == "de"
    assert services["mastodon"]["database"]["createLocally"] is False
    assert services["peertube"]["settings"]["instance"]["name"] == HOSTILE
    assert services["peertube"]["settings"]["user"]["video_quota"] == "5GB"
    assert services["peertube"]["settings"]["signup"] == {"enabled": True, "requires_approval": True}
    assert services["pixelfed"]["settings"]["MAX_PHOTO_SIZE"] == 15000
    assert services["pixelfed"]["settings"]["OPEN_REGISTRATION"] is False
    assert services["nginx"]["virtualHosts"]["d-peertube.alice.fedi.test"]["forceSSL"] is True
    assert config["security"]["acme"]["certs"]["d-pixelfed.alice.fedi.test"]["email"] == "alice@example.org"
    assert config["users"]["users"]["root"]["openssh"]["authorizedKeys"]["keys"] == ["ssh-ed25519 AAAAC3Nz controller"]
    assert {22, 80, 443} <= set(config["firewall"]["allowedTCPPorts"])


def test_customer_text_in_a_dotenv_file_is_one_quoted_line(evaluate: Evaluate) -> None:
    name = evaluate()["services"]["pixelfed"]["settings"]["APP_NAME"]
    assert name.startswith('"')
    assert name.endswith('"')
    inner = name[1:-1]
    assert "\n" not in inner
    assert "\r" not in inner
    # nothing but escaped quotes and dollar signs is left inside
    assert '"' not in inner.replace("\\\\", "").replace('\\"', "")
    assert "$" not in inner.replace("\\\\", "").replace("\\$", "")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('{ services.mastodon.localDomian = "x"; }', "The option `services.mastodon.localDomian' does not exist"),
        ("{ services.peertube.listenHttp = lib.mkForce 99999; }", "services.peertube.listenHttp' is not of type"),
        ("{ services.pixelfed.settings.X = [ ]; }", "services.pixelfed.settings.X' is not of type"),
        (
            '{ services.nginx.virtualHosts."x".locations."/".proxyPas = "y"; }',
            'services.nginx.virtualHosts.x.locations."/".proxyPas\' does not exist',
        ),
    ],
)
def test_a_wrong_option_is_refused(evaluate: Evaluate, extra: str, message: str) -> None:
    with pytest.raises(ValueError, match="extra") as caught:
        evaluate(extra.replace("lib.", f"(import {NIXPKGS}/lib)."))
    assert message in str(caught.value)


@pytest.mark.parametrize("prefix", ["mastodon", "peertube", "pixelfed", "nginx", "redis", "openssh"])
def test_the_stand_in_has_no_option_that_nixos_does_not_have(
    nix: Callable[..., subprocess.CompletedProcess[str]], prefix: str
) -> None:
    expression = f"""
      let
        lib = import {NIXPKGS}/lib;
        system = import {NIXPKGS}/nixos/lib/eval-config.nix {{ system = "x86_64-linux"; modules = [ ]; }};
        names = node: if lib.isOption node then [ (toString node) ] else lib.concatMap names (lib.attrValues node);
      in names system.options.services.{prefix}
    """
    done = nix("nix-instantiate", "--eval", "--strict", "--json", "-E", expression)
    assert done.returncode == 0, done.stderr
    declared = json.loads(done.stdout)
    assert declared
    table = json.loads(TABLE.read_text(encoding="utf-8"))["options"]
    assert sorted(set(declared) - set(table)) == []


@pytest.mark.skipif(not UPSTREAM.exists(), reason="the research table is not part of the repository")
def test_the_table_is_the_one_that_was_read_from_nixos() -> None:
    assert json.loads(TABLE.read_text(encoding="utf-8")) == json.loads(UPSTREAM.read_text(encoding="utf-8"))
