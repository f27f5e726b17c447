# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of ./lab.

Exit codes: 0 done, 1 an error (with its message), 77 no lab is possible here; `exec`, `run` and `shell`: the command's.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from lab import control, doctor, environment, identity, image, run, standalone, world
from lab.errors import LabError, NoLabPossible
from lab.full import PARTS
from lab.paths import State, cache, read_json, state

_POWER = ("start", "shutdown", "stop", "reset", "suspend", "resume")


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(state(), options) or 0)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 77 if isinstance(error, NoLabPossible) else 1
    except OSError as error:
        hint = "use the user that started the lab (sudo)" if isinstance(error, PermissionError) else "./lab doctor"
        print(f"lab: {LabError(str(error), hint=hint)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="A data centre for tests on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Any, description: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=description, description=description)
        command.set_defaults(command=function)
        return command

    up = add("up", _up, "start the lab (builds the host image the first time)")
    up.add_argument("--no-services", action="store_true", help="without db1, dns1 and existing1")
    add("down", _down, "end the lab and delete everything but the image")
    status = add("status", _status, "show hosts and simulators")
    status.add_argument("--json", action="store_true")
    add("doctor", lambda where, _options: doctor.report(where), "show what this machine can do, and why not")
    execute = add("exec", _exec, "run a command on the lab's controller")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD ...")
    in_host = add("run", _run, "run a command as root of a host, without its network")
    in_host.add_argument("host")
    in_host.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD ...")
    shell = add("shell", _shell, "a shell in a host")
    shell.add_argument("host")
    power = add("power", _power, "the power switch of a host")
    power.add_argument("host")
    power.add_argument("action", choices=_POWER)
    host = add("host", _host, "make or remove hosts like existing1")
    host.add_argument("action", choices=("add", "remove"))
    host.add_argument("names", nargs="+", metavar="NAME")
    for name, description in (("cut", "pull the network cable of a host"), ("uncut", "plug it in again")):
        add(name, _cable, description).add_argument("host")
        commands.choices[name].set_defaults(verb=name)
    network = add("network", _network, "lose what goes between the controller and a host, whose network is fine")
    network.add_argument("host")
    network.add_argument("action", choices=("cut", "restore"))
    full = add("fill", _fill, "leave no free block on a file system of a host")
    full.add_argument("--leave", type=int, default=0, metavar="KIB", help="leave so many KiB")
    for disk in (full, add("unfill", _unfill, "make room again")):
        disk.add_argument("host")
        disk.add_argument("part", choices=PARTS)
    alone = add("proxmox", _proxmox, "serve a simulated Proxmox VE cluster alone: no root, no hosts, no image")
    standalone.add_arguments(alone)
    return parser


@contextlib.contextmanager
def _locked(where: State) -> Iterator[None]:
    """One up or down at a time for a state directory; makes the directory."""
    while True:
        where.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(where.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # While we waited `down` may have removed it.
            if where.root.exists() and os.path.samestat(os.fstat(descriptor), os.stat(where.root)):
                yield
                return
        finally:
            os.close(descriptor)


def _up(where: State, options: argparse.Namespace) -> int:
    if _inside(where) or world.find(where):
        return _is_up(where, options)
    _require_own(where)
    doctor.require_possible(where)
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    base = image.ensure(cache(), _progress)
    with _locked(where):
        if world.find(where):  # started by another `lab up` while this one waited
            return _is_up(where, options)
        try:
            _clear(where)
            where.hosts.mkdir()
            identity.create(where)
            _progress(f"starting the lab (image {base.name})")
            world.create(where, services=not options.no_services)
            _await(where)
        except BaseException as error:
            if where.log.exists() and not isinstance(error, KeyboardInterrupt):
                print(where.log.read_text(encoding="utf-8", errors="replace"), file=sys.stderr, end="")
            _remove(where)
            raise
    _progress(f"the lab is up after {time.monotonic() - began:.1f} s")
    return _status(where, options)


def _is_up(where: State, options: argparse.Namespace) -> int:
    _await(where)
    _progress("the lab is up already")
    return _status(where, options)


def _inside(where: State) -> bool:
    """Whether this command runs inside the lab it is about."""
    return (
        bool(os.environ.get("LAB_WORLD"))
        and where.world.exists()
        and read_json(where.world)["id"] == os.environ["LAB_WORLD"]
    )


def _await(where: State) -> None:
    """Wait until the supervisor says that everything answers, or is dead."""
    while not where.control.exists():
        if world.find(where) is None:
            raise LabError("the lab ended while it was starting", str(where.root))
        time.sleep(0.02)
    control.request(where, "wait")


def _down(where: State, _options: argparse.Namespace) -> int:
    if _inside(where):
        raise LabError("this command runs inside the lab", str(where.root), "use ./lab down outside")
    if not where.root.exists():
        _progress("the lab is not running")
        return 0
    with _locked(where):
        _remove(where)
    return 0


def _remove(where: State) -> None:
    """End a lab, running or dead, and delete its directory."""
    _clear(where)
    where.root.rmdir()


def _clear(where: State) -> None:
    """End a lab and empty its directory."""
    _require_own(where)
    world.kill(where)
    world.empty(where)


def _require_own(where: State) -> None:
    """Refuse a directory that holds something else than a lab."""
    if where.root.exists() and any(where.root.iterdir()) and not where.hosts.exists():
        raise LabError("this directory is not a lab's", str(where.root), "give LAB_STATE an empty or a new directory")


def _status(where: State, options: argparse.Namespace) -> int:
    status = control.request(where, "status")
    if getattr(options, "json", False):
        print(json.dumps(status, indent=2))
        return 0
    rows = [("HOST", "STATE", "ADDRESS", "WHAT")]
    for host in status["hosts"]:
        cut = ", cable cut" * host["cut"] + ", network cut" * host["network_cut"]
        rows.append(
            (
                host["name"],
                host["state"] + cut,
                " ".join(part.partition("/")[0] for part in host["addresses"]),
                host["purpose"],
            )
        )
    rows += [
        (simulator["name"], simulator["state"], simulator["url"], simulator["what"])
        for simulator in status["simulators"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _exec(where: State, options: argparse.Namespace) -> int:
    command = _command(options.argv)
    if _inside(where):
        run.execute(command, os.environ)
    current = world.require(where)
    variables = environment.environment(where, current, os.environ)
    world.enter(current)
    return run.in_child(lambda: run.execute(command, variables))


def _run(where: State, options: argparse.Namespace) -> int:
    return _in_host(where, options.host, _command(options.argv))


def _shell(where: State, options: argparse.Namespace) -> int:
    return _in_host(where, options.host, ["/bin/bash", "-l"])


def _in_host(where: State, host: str, command: Sequence[str]) -> int:
    init = control.request(where, "init", name=host)
    if _inside(where):
        return run.in_host(init, command)
    world.enter(world.require(where))

    def inside() -> NoReturn:
        os._exit(run.in_host(init, command))

    return run.in_child(inside)


def _power(where: State, options: argparse.Namespace) -> int:
    control.request(where, "power", name=options.host, action=options.action)
    return 0


def _host(where: State, options: argparse.Namespace) -> int:
    control.request(where, f"{options.action}_hosts", names=options.names)
    return 0


def _network(where: State, options: argparse.Namespace) -> int:
    control.request(where, f"{options.action}_network", name=options.host)
    return 0


def _fill(where: State, options: argparse.Namespace) -> int:
    control.request(where, "fill", name=options.host, part=options.part, leave=1024 * options.leave)
    return 0


def _unfill(where: State, options: argparse.Namespace) -> int:
    control.request(where, "unfill", name=options.host, part=options.part)
    return 0


def _proxmox(_where: State, options: argparse.Namespace) -> int:
    return standalone.run(options)


def _cable(where: State, options: argparse.Namespace) -> int:
    control.request(where, options.verb, name=options.host)
    return 0


def _command(argv: Sequence[str]) -> list[str]:
    command = list(argv[1:] if argv[:1] == ["--"] else argv)
    if not command:
        raise LabError("no command given", hint="./lab exec -- CMD ...")
    return command


def _progress(message: str) -> None:
    print(f"lab: {message}", file=sys.stderr, flush=True)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
