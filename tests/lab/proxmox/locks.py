# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""flock() on a file, within one event loop: one holder, or several who share."""

from __future__ import annotations

import asyncio


class FileLock:
    """Exclusive by `acquire`, shared by `acquire_shared`; the first to share takes the lock, the last gives it back."""

    def __init__(self) -> None:
        self._exclusive = asyncio.Lock()
        self._door = asyncio.Lock()  # one at a time decides whether it is the first
        self._sharing = 0

    def locked(self) -> bool:
        return self._exclusive.locked()

    def locked_exclusively(self) -> bool:
        return self.locked() and not self._sharing

    async def acquire(self) -> None:
        await self._exclusive.acquire()

    def release(self) -> None:
        self._exclusive.release()

    async def acquire_shared(self) -> None:
        async with self._door:
            if not self._sharing:
                await self._exclusive.acquire()
            self._sharing += 1

    def release_shared(self) -> None:
        self._sharing -= 1
        if not self._sharing:
            self._exclusive.release()
