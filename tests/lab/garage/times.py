# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Instants: milliseconds since 1970 inside, RFC 3339 outside."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def instant(milliseconds: int | None) -> str | None:
    """RFC 3339 in UTC, with milliseconds where there are any."""
    if milliseconds is None:
        return None
    precision = "milliseconds" if milliseconds % 1000 else "seconds"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec=precision).replace("+00:00", "Z")
