# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Provider of the zones in a server's configuration: an include file, zone files of new zones, and a reload."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

try:
    import dns.name
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones import config, files
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.config import Software
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.files import Files, refused_files
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.model import (
    ActualZone,
    Holder,
    MalformedZone,
    Wanted,
    WantedZone,
    ZoneChange,
    name_text,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.planning import plan_zones, without
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.removal import Removal
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    InvalidInput,
    Locked,
    MissingCommand,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Applied, Plan

TIMEOUT_SECONDS = 120
# not everybody has them in PATH
SERVER_PROGRAMS = "/usr/sbin:/usr/local/sbin:/sbin"
KNOT_ZONE = re.compile(r'  - domain: "([^"]+)"\Z')


@dataclass(frozen=True)
class Configuration:
    """Where the server's configuration is.

    :param main: its main file, which includes *include*.
    :param reload: arguments of the command that has the server read it again.
    """

    software: Software
    main: Path
    include: Path
    reload: tuple[str, ...]


class ConfiguredZones:
    """The zones of one include file."""

    kind: ClassVar[str] = "dns_zones"

    def __init__(
        self,
        configuration: Configuration,
        zone_files: Files,
        owner: str,
        removal: Removal,
        *,
        purge: bool,
        allowed: Collection[dns.name.Name],
    ) -> None:
        self._configuration = configuration
        self._files = zone_files
        self._owner = owner
        self._removal = removal
        self._purge = purge
        self._allowed = allowed
        # as read last: what the include file has, and what the server has of it
        self._text = ""
        self._before = ""
        self._ours: Mapping[str, ActualZone] = {}
        self._foreign: Mapping[str, ActualZone] = {}

    @property
    def _pending(self) -> Path:
        """The include file as it was, from before it is replaced until the server has read the new one."""
        include = self._configuration.include
        return include.with_name(f".{include.name}.reload-pending")

    def read(self, desired: Sequence[Wanted]) -> Mapping[str, ActualZone]:
        """Our zones, and of those that other parts of the server's configuration have the wanted ones."""
        with_include(self._configuration, self._configuration.include)
        self._text = read_text(
            self._configuration.include, f"Make an empty one, included in {self._configuration.main}"
        )
        # where a run ended before the server had read the file, what it was to do is done again
        self._before = read_text(self._pending) if self._pending.exists() else self._text
        self._ours = config.parse(
            self._configuration.software, self._owner, self._before, str(self._configuration.include)
        )
        written = config.parse(self._configuration.software, self._owner, self._text, str(self._configuration.include))
        others = set(configured(self._configuration)) - set(self._ours) - set(written)
        self._foreign = {name: ActualZone(name, dns.name.from_text(name), Holder(None)) for name in others}
        wanted = {item.name for item in desired}
        return {**{name: found for name, found in self._foreign.items() if name in wanted}, **self._ours}

    def plan(self, desired: Sequence[Wanted], actual: Mapping[str, ActualZone]) -> Plan[Wanted, ActualZone]:
        software = self._configuration.software
        # a line that somebody changed is written again with all others
        intact = self._text == self._render(self._ours) or not (self._ours or self._text.strip())

        def same(item: WantedZone, found: ActualZone) -> bool:
            return (
                intact
                and (item.holder, item.group, item.settings) == (found.holder, found.group, found.settings)
                and self._files.zone_file(item.name).exists()
            )

        plan = plan_zones(
            [_for_software(item, software) for item in desired],
            {**self._foreign, **self._ours},
            self._owner,
            self._removal,
            purge=self._purge,
            allowed=self._allowed,
            same=same,
        )
        return without(plan, self._refused(plan.pending()))

    def apply(self, changes: Sequence[ZoneChange]) -> Iterator[Applied[Wanted, ActualZone]]:
        include = self._configuration.include
        with files.locked(include.parent):
            if read_text(include) != self._text:
                what = "somebody else changed the file after this run had read it"
                raise Locked(what, where=str(include), hint="Run again")
            yield from self._apply(changes)

    def _apply(self, changes: Sequence[ZoneChange]) -> Iterator[Applied[Wanted, ActualZone]]:
        ready = []
        for change in changes:
            try:
                self._prepare(change)
            except HostingError as error:
                yield Applied(change, error)
            else:
                ready.append(change)
        if not ready:
            return
        zones = _after(self._ours, ready)
        self._check(zones)
        self._install(zones)
        for change in ready:
            try:
                if change.action == "delete":
                    self._removal.set_aside(change.name)
            except HostingError as error:
                yield Applied(change, error)
            else:
                yield Applied(change)

    def outputs(self, actual: ActualZone) -> Mapping[str, Any]:
        return {"file": str(self._files.zone_file(actual.name)), **actual.shown()}

    def _refused(self, changes: Sequence[ZoneChange]) -> dict[str, HostingError]:
        """What the server's own program refuses, by name; it refuses all for the fault of one, so that is sought."""
        errors = refused_files(self._files, changes)
        checked = [change for change in changes if change.name not in errors]
        waiting = [checked] if checked else []
        zones: Mapping[str, WantedZone | ActualZone] = self._ours
        while waiting:
            part = waiting.pop()
            try:
                trial = _after(zones, part)
                self._check(trial)
            except HostingError as error:
                if len(part) == 1:
                    errors[part[0].name] = error
                else:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
            else:
                zones = trial
        return errors

    def _prepare(self, change: ZoneChange) -> None:
        if change.action == "delete" and change.actual is not None:
            self._removal.copy(change.actual)
        elif isinstance(change.desired, WantedZone):
            files.make_zone_file(self._files, change.desired, lambda path: self._check_zone_file(change.name, path))

    def _check(self, zones: Mapping[str, WantedZone | ActualZone]) -> None:
        """Have the server's own program check the whole configuration as it would be.

        :raises HostingError: it refuses it.
        """
        include = self._configuration.include
        with files.candidate(self._files, include, self._render(zones)) as written:
            check_configuration(self._configuration, written)

    def _check_zone_file(self, name: str, path: Path) -> None:
        if self._configuration.software == "bind":
            run(["named-checkzone", name, str(path)], f"zone {name}")

    def _install(self, zones: Mapping[str, WantedZone | ActualZone]) -> None:
        """Replace the include file and have the server read it.

        :raises HostingError: it could not; the file is as before.
        """
        include = self._configuration.include
        with files.candidate(self._files, self._pending, self._before) as before:
            files.replace(before, self._pending)
        with files.candidate(self._files, include, self._render(zones)) as written:
            files.replace(written, include)
        try:
            run(self._configuration.reload, "reload_command")
        except HostingError:
            # the server goes on with the old configuration, so the file has to say the same
            files.replace(self._pending, include)
            raise
        self._pending.unlink()

    def _render(self, zones: Mapping[str, Any]) -> str:
        return config.render(self._configuration.software, self._owner, zones.values(), self._files.directory)


def configured(configuration: Configuration) -> list[str]:
    """The zones of the server's whole configuration as it is, without a running server.

    :raises HostingError: it is invalid already.
    """
    if configuration.software == "knot":
        # the output holds keys: only names are taken from it
        exported = run(["knotc", "-c", str(configuration.main), "conf-export"], str(configuration.main))
        found = [match[1] for line in exported.splitlines() if (match := KNOT_ZONE.match(line))]
    else:
        listed = run(["named-checkconf", "-l", str(configuration.main)], str(configuration.main))
        found = [line.split()[0] for line in listed.splitlines() if line.split()]
    return [name_text(dns.name.from_text(name).canonicalize()) for name in found]


def check_configuration(configuration: Configuration, include: Path) -> None:
    """Check the server's configuration with *include* in the place of the include file.

    :raises HostingError: the server's program refuses it.
    """
    trial = with_include(configuration, include)
    # beside the main file, because it may name others relative to itself; private, because it may hold keys
    with files.candidate(Files(configuration.main.parent), configuration.main, trial, mode=0o600) as main:
        knot = configuration.software == "knot"
        command = ["knotc", "-c", str(main), "conf-check"] if knot else ["named-checkconf", str(main)]
        try:
            run(command, "the configuration as it would be")
        except BackendError as error:
            said = error.what.replace(str(include), str(configuration.include))
            raise InvalidInput(said, where=error.where, hint="Check what the zone names of the configuration") from None


def with_include(configuration: Configuration, include: Path) -> str:
    """The server's main configuration with *include* in the place of the include file.

    :raises InvalidInput: it does not name the include file.
    """
    text = read_text(configuration.main)
    quoted = re.escape(str(configuration.include))
    statement = re.compile(
        rf'^([ \t]*(?:-[ \t]*)?include:?[ \t]+"?){quoted}("?[ \t]*;?[ \t]*(?:(?:#|//).*)?)$', re.MULTILINE
    )
    trial, count = statement.subn(lambda match: f"{match[1]}{include}{match[2]}", text)
    if not count:
        knot = configuration.software == "knot"
        line = f"include: {configuration.include}" if knot else f'include "{configuration.include}";'
        raise InvalidInput(
            "the server's main configuration does not include our file",
            where=str(configuration.main),
            hint=f"Make {configuration.include} empty and add the line: {line}",
        )
    return trial


def read_text(path: Path, hint: str = "") -> str:
    """The text of a file.

    :raises BackendError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BackendError(f"the file cannot be read: {error}", where=str(path), hint=hint) from None


def run(command: Sequence[str], where: str) -> str:
    """Run a program without a shell and return what it prints.

    :raises HostingError: it is missing, takes too long or fails.
    """
    program = shutil.which(command[0]) or shutil.which(command[0], path=SERVER_PROGRAMS)
    if program is None:
        raise MissingCommand(
            f"the program {command[0]} was not found", where=where, hint="Run on the DNS server, with become"
        )
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"{command[0]}: {error}", where=where) from None
    if done.returncode:
        # the first line has the cause, the others what follows from it
        said = (done.stderr.strip() or done.stdout.strip()).partition("\n")[0]
        raise BackendError(f"{command[0]} fails ({done.returncode}): {said}", where=where)
    return done.stdout


def _after(zones: Mapping[str, WantedZone | ActualZone], changes: Sequence[ZoneChange]) -> dict[str, Any]:
    after = dict(zones)
    for change in changes:
        after.pop(change.name, None)
        if change.action != "delete" and isinstance(change.desired, WantedZone):
            after[change.name] = change.desired
    return after


def _for_software(item: Wanted, software: Software) -> Wanted:
    """The item, malformed if its settings mean nothing to this server."""
    if isinstance(item, MalformedZone) or item.state == "absent":
        return item
    try:
        config.check_settings(software, item)
    except InvalidInput as error:
        return MalformedZone(item.name, error)
    return item
