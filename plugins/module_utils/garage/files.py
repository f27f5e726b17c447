# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that hold one secret each, for their owner only: read, and written so that nothing can get lost."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, HostingError, InvalidInput

# no secret of Garage is as long; anything longer is another file
SECRET_MAX = 4096


@dataclass(frozen=True)
class SecretFile:
    """``content`` is None when there is no file; ``private`` is whether nobody but its owner may read it."""

    content: str | None = field(repr=False)
    private: bool = True


def read_secret(path: str, where: str) -> SecretFile:
    """The file at *path*, without a final line end.

    :param where: item and option, for messages.
    :raises InvalidInput: *path* cannot be such a file, or cannot become one.
    """
    file = Path(path)
    if not file.is_absolute():
        raise InvalidInput("the path is not absolute", where=where, hint="Give the whole path")
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if not os.access(file.parent, os.W_OK | os.X_OK):
            raise InvalidInput(
                f"no file can be made in {file.parent}", where=where, hint="Make the directory first"
            ) from None
        return SecretFile(None)
    except OSError as error:
        raise _unusable(error, where) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > SECRET_MAX:
            raise InvalidInput("it is no file with a secret", where=where, hint="Give another path")
        content = os.read(descriptor, SECRET_MAX).decode("ascii").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InvalidInput("it is no file with a secret", where=where, hint="Give another path") from None
    except OSError as error:
        raise _unusable(error, where) from error
    finally:
        os.close(descriptor)
    return SecretFile(content, not status.st_mode & 0o077)


@contextmanager
def reserved(path: str, where: str) -> Iterator[Callable[[str], None]]:
    """Room for a secret that is about to be made; calling what is yielded keeps it at *path* (mode 0600, no line end).

    What cannot be written is known before the block makes a secret, and *path* has the old content or the new one.

    :raises HostingError: the file cannot be written.
    """
    file = Path(path)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name[:40]}.", dir=file.parent)
    except OSError as error:
        raise _unusable(error, where) from error

    def keep(secret: str) -> None:
        try:
            os.ftruncate(descriptor, os.write(descriptor, secret.encode("ascii")))
            os.fsync(descriptor)
            os.replace(temporary, file)
            _sync_directory(file.parent)
        except OSError as error:
            raise _unusable(error, where) from error

    try:
        try:
            # takes the blocks now, so that a full disk is known now
            os.posix_fallocate(descriptor, 0, SECRET_MAX)
        except OSError as error:
            raise _unusable(error, where) from error
        yield keep
    finally:
        os.close(descriptor)
        Path(temporary).unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(error: OSError, where: str) -> HostingError:
    return BackendError(
        f"the file cannot be used: {error.strerror or error}", where=where, hint="Give another path, or make room"
    )
