# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes qcow2 files of a wanted size (QEMU docs/interop/qcow2.rst, version 3).

A real image is replaced by one of the same file size and virtual size whose data are zeros: the file on this machine
is sparse, but every cluster is allocated in its tables, so that tools take it for an image.
"""

from __future__ import annotations

import struct
from pathlib import Path

CLUSTER = 1 << 16  # bytes
_ENTRIES = CLUSTER // 8  # of an L2 table: it maps 512 MiB
_COPIED = 1 << 63  # "refcount is exactly one"
_PER_BLOCK = CLUSTER // 2  # clusters whose counts one refcount block holds


def make(path: Path, *, virtual_size: int, file_size: int = 0) -> None:
    """Writes an image; both sizes in bytes. A file size too small for the tables gives the smallest possible image."""
    level1_entries = -(-virtual_size // (_ENTRIES * CLUSTER))
    level1 = max(1, -(-level1_entries * 8 // CLUSTER))
    wanted = -(-file_size // CLUSTER)
    blocks = max(1, -(-wanted // _PER_BLOCK))
    room = max(0, wanted - 2 - blocks - level1)  # for L2 tables and data
    tables = -(-room // (_ENTRIES + 1)) if room > 1 else 0
    data = room - tables
    level1_at, tables_at = 2 + blocks, 2 + blocks + level1
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0, 16, virtual_size, 0, level1_entries, level1_at * CLUSTER, CLUSTER, 1, 0, 0),
        *(0, 0, 0, 4, 104),
    )
    first = tables_at + tables
    used = first + data
    with path.open("wb") as file:
        file.write(header)
        file.seek(CLUSTER)
        file.write(struct.pack(f">{blocks}Q", *((2 + number) * CLUSTER for number in range(blocks))))
        file.seek(2 * CLUSTER)
        file.write(struct.pack(">H", 1) * used)
        file.seek(level1_at * CLUSTER)
        entries = [(tables_at + number) * CLUSTER | _COPIED for number in range(tables)]
        entries += [0] * (level1_entries - tables)
        file.write(struct.pack(f">{level1_entries}Q", *entries))
        file.seek(tables_at * CLUSTER)
        file.write(struct.pack(f">{data}Q", *((first + number) * CLUSTER | _COPIED for number in range(data))))
        end = level1_at * CLUSTER + 8 * level1_entries if not tables else first * CLUSTER
        file.truncate(max(end, file_size))  # the last cluster of data may be cut short
