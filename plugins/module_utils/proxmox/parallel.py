# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of several machines at the same time, in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, HostingError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopped(HostingError):
    """The run was interrupted."""


class Parallel:
    """Runs a function for many items.

    :param workers: threads; 1 works in the caller's own.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._stop = threading.Event()

    def sleep(self, seconds: float) -> None:
        """Wait, or end the thread if the run was interrupted. :raises Stopped: it was."""
        if self._stop.wait(seconds):
            raise Stopped("interrupted", hint="Run again; it goes on where this run ended")

    def each(self, items: Sequence[Item], work: Callable[[Item], Result]) -> Iterator[Result | HostingError]:
        """The results in the order of the items; an error stays with its item.

        When the caller is interrupted, nothing new is begun, and what is under way ends at its next pause.
        """
        if self._workers <= 1 or len(items) <= 1:
            yield from (_guarded(work, item) for item in items)
            return
        executor = ThreadPoolExecutor(min(self._workers, len(items)), "vm")
        try:
            futures = [executor.submit(_guarded, work, item) for item in items]
            for future in futures:
                yield future.result()
        except BaseException:
            self._stop.set()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _guarded(work: Callable[[Item], Result], item: Item) -> Result | HostingError:
    try:
        return work(item)
    except HostingError as error:
        return error
    except Exception as error:  # noqa: BLE001  a defect at one item must not lose what was done at the others
        return BackendError(
            f"unexpected {type(error).__name__}: {error}", hint="Run again; if it stays, report this defect"
        )
