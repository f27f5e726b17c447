# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds of the community collections and of this one for the same jobs on the same private servers.

Both sides run through ansible-playbook, under one Ansible, on one Python, one after the other on the same server.
Prints one table; ends with 1 if a bar is missed.

Environment: BENCH_VENV, the virtual environment of tests/bench/requirements.txt; APPS (databases and users, 100),
RECORDS (1000), ZONE (records of the large zone, 10000), BUCKETS (100); PEER, how many items the other side really does
at most (100), its costs for all of them are extrapolated; ONLY, some of "postgresql knot bind garage valkey".
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

import services_jobs as jobs
from services_play import Ansible, Cost, ansible
from support.cutting_proxy import Direction, Request, cutting_proxy
from support.dns_server import DnsServer, bind_server, knot_server
from support.garage_server import garage_server
from support.postgresql import postgresql_server
from support.redis_server import redis_server
from tabulate import tabulate

HEADERS = ("job", "theirs s", "ours s", "ratio", "theirs CPU s", "ours CPU s", "ratio", "bar", "met?", "counted")
OUR_ZONE, PEER_ZONE = "fedi.test", "other.test"
DNS_UPDATE = 5


@dataclass(frozen=True)
class Sizes:
    """How many items a job has; *peer* of them the other side really does at most."""

    apps: int
    records: int
    zone: int
    buckets: int
    peer: int


@dataclass(frozen=True)
class Row:
    """One job.

    :param target: what it must hold, its bar; empty if nothing.
    :param misses: what does not hold.
    """

    job: str
    theirs: Cost | None
    ours: Cost
    counted: str
    target: str = ""
    misses: tuple[str, ...] = ()

    def cells(self) -> list[str]:
        theirs, ours = self.theirs, self.ours
        seconds, ratio, cpu, cpu_ratio = ("-",) * 4
        if theirs is not None:
            seconds, cpu = f"{theirs.seconds:.1f}", f"{theirs.cpu:.1f}"
            ratio, cpu_ratio = f"{theirs.seconds / ours.seconds:.0f}", f"{theirs.cpu / ours.cpu:.0f}"
        met = ("no" if self.misses else "yes") if self.target else "-"
        return [self.job, seconds, f"{ours.seconds:.1f}", ratio, cpu, f"{ours.cpu:.1f}", cpu_ratio,
                self.target or "-", met, self.counted]  # fmt: skip


def broken(conditions: Mapping[str, bool]) -> tuple[str, ...]:
    """The conditions that do not hold."""
    return tuple(name for name, holds in conditions.items() if not holds)


@dataclass(frozen=True)
class Bench:
    """Ansible, a playbook without tasks for comparison, and a directory for the files of one server."""

    ansible: Ansible
    empty: Cost
    sizes: Sizes
    directory: Path

    def theirs(self, tasks: list[jobs.Task], name: str, items: jobs.Items, environment: Mapping[str, str]) -> Cost:
        """Their tasks over the first of *items*, which are the variable *name*; extrapolated to all."""
        done = items[: self.sizes.peer]
        cost = self.ansible.play(tasks, {name: done}, environment)
        return cost if len(done) == len(items) else cost.extrapolated(self.empty, len(done), len(items))

    def extrapolated(self, number: int) -> str:
        """What the table says about their costs for *number* items."""
        return "" if number <= self.sizes.peer else f"; theirs: from {self.sizes.peer}"


def postgresql(bench: Bench) -> Iterator[Row]:
    """Applications on PostgreSQL, made and then unchanged; connections are counted in the server's log."""
    number = bench.sizes.apps
    wanted = {"databases": jobs.databases(jobs.apps("ours", number))}
    with postgresql_server(bench.directory, "log_connections=on") as server:
        login = server.environment()

        def connections() -> int:
            log = server.log.read_text(encoding="utf-8", errors="replace")
            return log.count("connection authorized:")

        for job, factor, most, changes in (("first run", 20, None, True), ("unchanged", 100, 2, False)):
            before = connections()
            theirs = bench.theirs(jobs.PEER_DATABASES, "apps", jobs.apps("theirs", number), login)
            between = connections()
            ours = bench.ansible.play(jobs.OUR_DATABASES, wanted, login)
            used = connections() - between
            conditions = {
                f"ratio {factor}": theirs.seconds / ours.seconds >= factor,
                f"changed: {changes}": ours.changed == changes,
                f"{most} connections": most is None or used <= most,
            }
            told = f"connections: theirs {between - before}, ours {used}{bench.extrapolated(number)}"
            told += "; theirs reports changed" if theirs.changed > changes else ""
            target = f"1/{factor}" + (f", {most} connections" if most else "")
            yield Row(f"{number} applications on PostgreSQL, {job}", theirs, ours, told, target, broken(conditions))


DnsFactory = Callable[[Path], AbstractContextManager[DnsServer]]


@dataclass
class Updates:
    """Counts UPDATE messages that pass a proxy."""

    number: int = field(default=0)

    def __call__(self, direction: Direction, request: Request) -> bool:
        """Every message has its length before it, and its opcode in the third byte (RFC 1035, 4.1.1 and 4.2.2)."""
        rest = request.data if direction == "answer" else b""
        while len(rest) > 4:
            self.number += (rest[4] >> 3) & 0xF == DNS_UPDATE
            rest = rest[2 + int.from_bytes(rest[:2], "big") :]
        return False


@dataclass(frozen=True)
class Zone:
    """A zone of ours behind a proxy that counts."""

    bench: Bench
    server: DnsServer
    port: int
    updates: Updates

    @property
    def software(self) -> str:
        return {"knot": "Knot", "bind": "BIND"}[self.server.software]

    @property
    def login(self) -> dict[str, str]:
        server = self.server
        key = {"DNS_TSIG_NAME": server.key, "DNS_TSIG_SECRET": server.secret, "DNS_TSIG_ALGORITHM": server.algorithm}
        return {"DNS_SERVER": server.address, **key}

    def ours(self, **records: object) -> tuple[Cost, int]:
        """Cost and number of UPDATE messages; *records* are fields of the zone."""
        before = self.updates.number
        variables = {"zones": [{"name": OUR_ZONE, **records}], "server_port": self.port}
        cost = self.bench.ansible.play(jobs.OUR_RECORDS, variables, self.login)
        return cost, self.updates.number - before

    def theirs(self, records: jobs.Items) -> tuple[Cost, int]:
        """The same of the other side, in a zone of its own."""
        before = self.updates.number
        server = self.server
        key = {"key_name": server.key, "key_secret": server.secret, "key_algorithm": server.algorithm}
        tasks = jobs.peer_records({"server": server.address, "port": self.port, **key}, PEER_ZONE)
        cost = self.bench.theirs(tasks, "records", records, {})
        return cost, self.updates.number - before


def records(bench: Bench, serve: DnsFactory) -> Iterator[Row]:
    """Records changed on one DNS server, and a large zone without anything to change."""
    updates = Updates()
    with serve(bench.directory) as server, cutting_proxy((server.address, server.port), updates) as proxy:
        zone = Zone(bench, server, proxy.port, updates)
        yield changed_records(zone, bench.sizes.records)
        yield from unchanged_records(zone, bench.sizes.zone)


def changed_records(zone: Zone, number: int) -> Row:
    before, after = jobs.record_sets(number, 1), jobs.record_sets(number, 2)
    zone.theirs(before)
    theirs, sent = zone.theirs(after)
    zone.ours(records=jobs.record_lines(before))
    ours, messages = zone.ours(records=jobs.record_lines(after))
    conditions = {"ratio 500": theirs.seconds / ours.seconds >= 500, "changed": ours.changed}
    told = f"UPDATE messages: theirs {sent}, ours {messages}{zone.bench.extrapolated(number)}"
    return Row(f"{number} records changed, {zone.software}", theirs, ours, told, "1/500", broken(conditions))


def unchanged_records(zone: Zone, number: int) -> Iterator[Row]:
    """In both forms: Ansible itself takes seconds to hand over as many dictionaries."""
    wanted = jobs.record_sets(number, 2)
    lines = {"records": jobs.record_lines(wanted)}
    zone.ours(**lines)
    serial = zone.server.serial(OUR_ZONE)
    for form, target, fields in (("as lines", "2 s, no UPDATE", lines), ("as a list", "", {"record_sets": wanted})):
        cost, messages = zone.ours(**fields)
        conditions = {
            "2 s": cost.seconds <= 2,
            "no UPDATE": messages == 0 and zone.server.serial(OUR_ZONE) == serial,
            "not changed": not cost.changed,
        }
        told = f"UPDATE messages: {messages}; the task alone {cost.task:.1f} s"
        job = f"{number} records {form}, {zone.software}, unchanged"
        yield Row(job, None, cost, told, target, broken(conditions) if target else ())


def garage(bench: Bench) -> Iterator[Row]:
    """Buckets with a key each on a Garage; requests are counted in its log."""
    number = bench.sizes.buckets
    wanted = {"storage": jobs.storage(number)}
    with garage_server() as server:
        for job, most, changes in (("first run", None, True), ("unchanged", 2 + number, False)):
            before = server.log.count(" /v2/")
            cost = bench.ansible.play(jobs.OUR_BUCKETS, wanted, server.environment())
            requests = server.log.count(" /v2/") - before
            conditions = {
                f"{most} requests": most is None or requests <= most,
                f"changed: {changes}": cost.changed == changes,
            }
            target = f"{most} requests" if most else ""
            yield Row(f"{number} buckets, {job}", None, cost, f"requests: {requests}", target, broken(conditions))


def valkey(bench: Bench) -> Iterator[Row]:
    """ACL users of tenants on Redis, made and then unchanged; the server counts its connections."""
    number = bench.sizes.apps
    wanted = {"users": jobs.users(jobs.apps("ours", number))}
    with redis_server() as server, server.client() as admin:
        login = {
            "VALKEY_HOST": server.host,
            "VALKEY_PORT": str(server.port),
            "VALKEY_USER": server.user,
            "VALKEY_PASSWORD": server.password,
        }

        def connections() -> int:
            return int(admin.info("stats")["total_connections_received"])

        for job in ("first run", "unchanged"):
            before = connections()
            theirs = bench.theirs(jobs.PEER_USERS, "apps", jobs.apps("theirs", number), login)
            between = connections()
            ours = bench.ansible.play(jobs.OUR_USERS, wanted, login)
            told = f"connections: theirs {between - before}, ours {connections() - between}"
            yield Row(
                f"{number} Valkey users, {job}", theirs, ours,
                f"{told}{bench.extrapolated(number)}; theirs: redis-cli, there is no module",
            )  # fmt: skip


JOBS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "postgresql": postgresql,
    "knot": partial(records, serve=knot_server),
    "bind": partial(records, serve=bind_server),
    "garage": garage,
    "valkey": valkey,
}


def measured(name: str, runs: Ansible, empty: Cost, sizes: Sizes) -> Iterator[Row]:
    """The rows of one server, which is ended whatever happens."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        yield from JOBS[name](Bench(runs, empty, sizes, Path(directory)))


def measurements(names: Sequence[str], sizes: Sizes) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        runs = ansible(Path(directory))
        empty = runs.play([], {}, {})
        yield Row("a playbook without tasks", None, empty, "")
        for name in names:
            yield from measured(name, runs, empty, sizes)


def interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, interrupted)
    chosen = os.environ.get("ONLY", " ".join(JOBS)).split()
    if unknown := sorted({*chosen} - {*JOBS}):
        print(f"ONLY: there is no {unknown[0]}; there are {', '.join(JOBS)}", file=sys.stderr)
        return 2
    defaults = {"APPS": 100, "RECORDS": 1000, "ZONE": 10000, "BUCKETS": 100, "PEER": 100}
    sizes = Sizes(*(int(os.environ.get(name, default)) for name, default in defaults.items()))
    rows: list[Row] = []
    for row in measurements(chosen, sizes):
        rows.append(row)
        print(f"{row.job}: {row.ours.seconds:.2f} s", file=sys.stderr, flush=True)
    print(f"wall clock with the start of ansible-playbook, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    sides = ("left", *["right"] * 6, "left", "left", "left")
    print(tabulate([row.cells() for row in rows], HEADERS, disable_numparse=True, colalign=sides))
    failures = [f"{row.job}: not {', not '.join(row.misses)}" for row in rows if row.misses]
    print("\n".join(["", "missed:", *failures] if failures else ["", "every bar is met"]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
