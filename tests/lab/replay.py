# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replays recorded exchanges of the Proxmox VE API against a server: python tests/lab/replay.py TRANSCRIPTS --url URL

Prints every exchange as equal or with its differences, then one line `N equal, N different`.
Exit codes: 0 all are equal, 1 some differ, 2 nothing could be replayed.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

sys.path[:] = [str(Path(__file__).resolve().parents[1]), *sys.path[1:]]  # not this folder: its names are common ones

from lab.transcripts.accounts import Accounts, LoginError  # noqa: E402
from lab.transcripts.base import ensure, look, remove_new  # noqa: E402
from lab.transcripts.conversation import Compared, Conversation, Servers, SetupError  # noqa: E402
from lab.transcripts.wire import entry_point  # noqa: E402


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    document = json.loads(options.transcripts.read_text(encoding="utf-8"))
    names = [scenario["name"] for scenario in document["scenarios"]]
    if unknown := [name for name in options.only if name not in names]:
        print(f"replay: no scenario {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    try:
        servers = _servers(options, document)
        accounts = _accounts(options, servers, document)
        ensure(Conversation(servers, accounts, document), servers, accounts, document)
    except (LoginError, SetupError, OSError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    equal = different = 0
    for scenario in document["scenarios"]:
        if options.only and scenario["name"] not in options.only:
            continue
        print(f"== {scenario['name']}", flush=True)
        conversation = Conversation(servers, accounts, document, options.settle)
        before, tasks = look(conversation), conversation.tasks()
        good, count = 0, len(scenario["exchanges"])
        try:
            for compared in conversation.scenario(scenario):
                good += not compared.differences
                _show(compared, quiet=options.quiet)
        except (LoginError, SetupError, OSError) as error:
            print(f"  cannot go on: {error}; {count - good} exchanges are counted as different", flush=True)
        finally:
            remove_new(conversation, before, tasks)
        equal, different = equal + good, different + count - good
    print(f"{equal} equal, {different} different")
    return 1 if different else 0


def _show(compared: Compared, *, quiet: bool) -> None:
    if compared.differences or not quiet:
        verdict = "different" if compared.differences else "equal"
        print(f"  {compared.number:3} {verdict:9} {compared.request}", flush=True)
    for text in compared.differences:
        print(f"      {text}", flush=True)


def _servers(options: argparse.Namespace, document: Mapping[str, Any]) -> Servers:
    def tls(host: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=options.ca)
        if options.insecure or (not options.ca and _is_loopback(host)):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    names = {
        exchange["request"]["via"]
        for scenario in document["scenarios"]
        for exchange in scenario["exchanges"]
        if exchange["request"].get("via")
    }
    others = {name: entry_point(options.url2, tls) for name in names} if options.url2 else {}
    return Servers(entry_point(options.url, tls), others)


def _is_loopback(host: str) -> bool:
    """Nobody can stand between this process and a server on the same machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _accounts(options: argparse.Namespace, servers: Servers, document: Mapping[str, Any]) -> Accounts:
    accounts = Accounts(servers.first, document["world"]["auth"], options.user, options.password)
    name, equals, secret = options.token.partition("=")
    if equals:
        accounts.secrets[name] = secret
    elif name:
        accounts.secrets[accounts.token_of("token")] = name
    return accounts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="replay.py", description=__doc__.splitlines()[0])
    parser.add_argument("transcripts", type=Path, metavar="TRANSCRIPTS")
    parser.add_argument("--url", required=True, help="entry point of the first node")
    parser.add_argument("--url2", default="", help="entry point of the second node")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a scenario; may be repeated")
    parser.add_argument("--quiet", action="store_true", help="show only differences")
    parser.add_argument("--settle", type=float, help="seconds instead of the waits that notes ask for")
    parser.add_argument("--ca", default=os.environ.get("PROXMOX_CA_PATH") or None, metavar="FILE")
    parser.add_argument("--insecure", action="store_true", help="accept any certificate (loopback: the default)")
    parser.add_argument("--user", default="root@pam")
    parser.add_argument("--password", default=os.environ.get("PROXMOX_PASSWORD", ""), help="or PROXMOX_PASSWORD")
    parser.add_argument(
        "--token",
        default=os.environ.get("PROXMOX_TOKEN", ""),
        metavar="USER@REALM!NAME=SECRET",
        help="or PROXMOX_TOKEN; without it the token is made anew with the password",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
