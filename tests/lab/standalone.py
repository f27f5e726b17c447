# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`./lab proxmox`: the simulated Proxmox VE cluster alone, without root, namespaces, hosts or an image."""

from __future__ import annotations

import argparse
import asyncio
import errno
import fcntl
import secrets
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from lab.errors import LabError
from lab.paths import CHECKOUT, read_json, write_json
from lab.proxmox.emulated import EmulatedGuests
from lab.proxmox.faults import Faults, from_option
from lab.proxmox.store import Timing, World

ROOT, TOKEN = "root@pam", "root@pam!lab"


@dataclass(frozen=True)
class Credentials:
    """Of root@pam; both are made at the first start and kept in the state directory."""

    password: str
    secret: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    world = World()
    parser.add_argument("--listen", default="127.0.0.1:8006", metavar="ADDRESS:PORT", help="entry point of node 1")
    parser.add_argument("--listen2", metavar="ADDRESS:PORT", help="entry point of node 2 (default: the next port)")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="kept over restarts")
    parser.add_argument("--guests", choices=("none",), default="none", help="none: guests that only the API can see")
    parser.add_argument("--boot", type=float, default=Timing().boot, metavar="SECONDS", help="until an agent answers")
    parser.add_argument("--plain", action="store_true", help="HTTP instead of HTTPS")
    parser.add_argument("--nodes", default=",".join(world.nodes), metavar="NAME,NAME")
    parser.add_argument("--cluster", default=world.name, metavar="NAME")
    parser.add_argument("--pve-version", default=world.version, metavar="VERSION")
    parser.add_argument("--network", default=world.network, metavar="CIDR", help="addresses of the nodes")
    parser.add_argument("--bridge-network", default=world.bridge_network, metavar="CIDR", help="addresses of vmbr0")
    parser.add_argument(
        "--faults", default="", metavar="FILE|KIND=RATE,...", help="faults from the start; later DIR/faults.toml"
    )


def run(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT. LabError for options that cannot be."""
    nodes = tuple(options.nodes.split(","))
    points = _entry_points(options, len(nodes))
    state = options.state.absolute()
    try:
        state.mkdir(parents=True, exist_ok=True)
        world = World(nodes, options.cluster, options.pve_version, World.repoid, World.qemu,
                      options.network, options.bridge_network)  # fmt: skip
        for node in nodes:
            world.address(node)
            world.bridge_address(node)
        faults = from_option(options.faults, state)
    except (ValueError, IndexError) as error:
        raise LabError(str(error)) from None
    with _alone(state), suppress(KeyboardInterrupt):
        asyncio.run(_serve(options, state, world, points, faults))
    return 0


def _entry_points(options: argparse.Namespace, number: int) -> list[tuple[str, int]]:
    host, port = _address(options.listen)
    points = [(host, port + n if port else 0) for n in range(number)]
    if options.listen2 and number > 1:
        points[1] = _address(options.listen2)
    return points


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise LabError(f"{text!r} is no ADDRESS:PORT", hint="for example 127.0.0.1:8006; port 0 is any free one")
    return host.strip("[]"), int(port)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """One server for a state directory."""
    with open(state / "lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("another server uses this state directory", str(state), "give --state another one") from None
        yield


def credentials(state: Path) -> Credentials:
    file = state / "accounts.json"
    if not file.exists():
        accounts = {
            "users": {ROOT: {"password": secrets.token_urlsafe(16)}},
            "tokens": {TOKEN: {"secret": str(uuid.uuid4()), "privsep": 0}},
        }
        write_json(file, accounts)
    accounts = read_json(file)
    return Credentials(accounts["users"][ROOT]["password"], accounts["tokens"][TOKEN]["secret"])


async def _serve(
    options: argparse.Namespace, state: Path, world: World, points: list[tuple[str, int]], faults: Faults
) -> None:
    # only here, because the other commands of ./lab need no libraries
    from lab.certificates import write_certificates
    from lab.proxmox.server import serve_proxmox

    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    root = credentials(state)
    certificate = key = authority = None
    if not options.plain:
        authority, certificate, key = state / "ca.pem", state / "server.pem", state / "server.key"
        hosts = {host for host, _port in points}
        addresses = {host for host in hosts if _is_address(host)}
        names = ("localhost", *sorted(hosts - addresses - {"localhost"}), *world.nodes)
        write_certificates(authority, certificate, key, names=names, addresses=("127.0.0.1", *sorted(addresses)))
    try:
        runner = await serve_proxmox(
            hosts=EmulatedGuests(options.boot, state / "guests.json"), state=state, world=world, faults=faults,
            host=points[0][0], port=points[0][1], more=points[1:], certificate=certificate, key=key,
            access_log=state / "access.log", timing=Timing(boot=options.boot), images=(),
        )  # fmt: skip
    except OSError as error:
        hint = "give --listen another port, 0 for any free one" if error.errno == errno.EADDRINUSE else ""
        raise LabError(str(error), hint=hint) from None
    try:
        urls = [_url(options, address[0], address[1]) for address in runner.addresses]
        _tell(world, urls, root, authority, state)
        await ended.wait()
    finally:
        await runner.cleanup()
    print("lab: the cluster has ended", file=sys.stderr)


def _url(options: argparse.Namespace, host: str, port: int) -> str:
    return f"{'http' if options.plain else 'https'}://{f'[{host}]' if ':' in host else host}:{port}"


def _tell(world: World, urls: list[str], root: Credentials, authority: Path | None, state: Path) -> None:
    """What a client needs; the process that started this one waits for the last line."""
    rows = list(zip(world.nodes, urls, strict=True))
    rows += [("user", ROOT), ("password", root.password), ("token", f"{TOKEN}={root.secret}")]
    rows += [("CA", str(authority))] if authority else []
    rows += [("access log", str(state / "access.log")), ("faults", str(state / "faults.toml"))]
    for name, value in rows:
        print(f"{name:11} {value}")
    replay = Path("tests/lab/replay.py") if Path.cwd() == CHECKOUT else CHECKOUT / "tests/lab/replay.py"
    second = f" --url2 {urls[1]}" if len(urls) > 1 else ""
    print(f"replay      PROXMOX_PASSWORD='{root.password}' python {replay} TRANSCRIPTS --url {urls[0]}{second}")
    print("ready", flush=True)
