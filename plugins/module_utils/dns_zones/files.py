# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Zone files: the first content of a new zone, and files that are kept when a zone goes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import dns.exception
    import dns.rdatatype
    import dns.zone
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.content import Record
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.model import WantedZone, ZoneChange
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, HostingError, InvalidInput

# seconds; RIPE-203 says what they should be
REFRESH, RETRY, EXPIRE, NEGATIVE = 86400, 7200, 3600000, 300
# journals and signed copies: with them, a zone of the same name would come back with its old content
BIND_SUFFIXES = (".jnl", ".jbk", ".signed", ".signed.jnl")


@dataclass(frozen=True)
class Files:
    """Where files are written and to whom they belong; *directory* has the zone files."""

    directory: Path
    owner: str | None = None
    group: str | None = None

    def zone_file(self, name: str) -> Path:
        return self.directory / f"{name}.zone"


def first_content(item: WantedZone, serial: int) -> str:
    """The zone file of a new zone: SOA, NS, and the addresses of name servers inside the zone.

    :raises InvalidInput: no name server is given.
    """
    first = item.first
    if not first.nameservers:
        raise InvalidInput(
            "a new zone needs its name servers", where=f"zone {item.name}, nameservers", hint="List their names"
        )
    lines = [
        f"$ORIGIN {item.name}.",
        f"$TTL {first.ttl}",
        f"@ SOA {first.nameservers[0]}. {first.hostmaster}. {serial} {REFRESH} {RETRY} {EXPIRE} {NEGATIVE}",
        *(f"@ NS {name}." for name in first.nameservers),
        *(f"{name}. {'AAAA' if ':' in value else 'A'} {value}" for name, values in first.addresses for value in values),
    ]
    text = "\n".join(lines) + "\n"
    try:
        dns.zone.from_text(text, origin=item.zone, relativize=False)
    except (dns.exception.DNSException, ValueError) as error:
        raise InvalidInput(f"the zone file would be wrong: {error}", where=f"zone {item.name}") from None
    return text


def refused_files(files: Files, changes: Iterable[ZoneChange]) -> dict[str, HostingError]:
    """The zones that need a new file and do not say enough for it, by name."""
    errors: dict[str, HostingError] = {}
    for change in changes:
        item = change.desired
        if not isinstance(item, WantedZone) or item.state == "absent" or files.zone_file(item.name).exists():
            continue
        try:
            first_content(item, 0)
        except HostingError as error:
            errors[item.name] = error
    return errors


def make_zone_file(files: Files, item: WantedZone, check: Callable[[Path], None]) -> None:
    """Write the zone file of a new zone; one that exists belongs to the server and is never touched.

    :param check: raises HostingError if the server's own program refuses the file.
    """
    path = files.zone_file(item.name)
    if path.exists():
        return
    # a serial that is higher than any that secondaries may know from before
    with candidate(files, path, first_content(item, int(time.time()))) as written:
        check(written)
        with _translated(path), contextlib.suppress(FileExistsError):
            # unlike a rename, a link never replaces a file
            os.link(written, path)
            _sync(path.parent)


def keep_copy(directory: Path, name: str, records: Sequence[Record], stamp: str) -> Path:
    """Write what a zone has before it goes; readable for its owner only, because zones may be private."""
    path = directory / f"{name}.zone.copy-{stamp}"
    lines = [
        f"{owner} {ttl} IN {dns.rdatatype.to_text(value.rdtype)} {value.to_text()}\n" for owner, ttl, value in records
    ]
    text = "".join(sorted(lines, key=lambda line: " IN SOA " not in line))
    with candidate(Files(directory), path, text, mode=0o600) as written, _translated(path):
        os.link(written, path)
        _sync(directory)
    return path


def set_aside(path: Path, stamp: str) -> list[Path]:
    """Rename the file of a zone that has gone, and what BIND keeps beside it.

    :returns: the new names of those that were there.
    """
    found = []
    with _translated(path):
        for suffix in ("", *BIND_SUFFIXES):
            file = path.with_name(path.name + suffix)
            aside = path.with_name(f"{path.name}.removed-{stamp}{suffix}")
            with contextlib.suppress(FileNotFoundError):
                # unlike a rename, a link never replaces a file
                os.link(file, aside)
                file.unlink()
                found.append(aside)
        _sync(path.parent)
    return found


def now_stamp() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


@contextlib.contextmanager
def candidate(files: Files, target: Path, text: str, mode: int = 0o644) -> Iterator[Path]:
    """A file beside *target* with *text* on disk, gone afterwards unless it was renamed."""
    with _translated(target):
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    path = Path(name)
    try:
        with _translated(target), open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(descriptor, mode)
            if files.owner is not None:
                shutil.chown(path, user=files.owner)
            if files.group is not None:
                shutil.chown(path, group=files.group)
            os.fsync(descriptor)
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other runs from changing files in *directory*; one that comes later waits."""
    with _translated(directory):
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        with _translated(directory):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace(written: Path, target: Path) -> None:
    """Put *written* in the place of *target*, as one step that outlives a crash."""
    with _translated(target):
        os.replace(written, target)
        _sync(target.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, LookupError) as error:
        raise _translate(error, path) from None


def _translate(error: Exception, path: Path) -> HostingError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return BackendError(f"the file cannot be written: {reason}", where=str(path), hint="Check the disk and the rights")
