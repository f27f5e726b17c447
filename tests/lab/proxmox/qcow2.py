# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `qemu-img info` tells of an untrusted image file: its virtual size, or why it is refused.

Sources: QEMU docs/interop/qcow2.rst (header), block/vmdk.c (sparse extent header).
"""

from __future__ import annotations

import struct
from pathlib import Path

MAGIC = b"QFI\xfb"
HEADER = struct.Struct(">4sIQIIQ")  # magic, version, backing file offset and length, cluster bits, virtual size
EXTERNAL_DATA = 1 << 2  # incompatible feature: the data lie in another file
VMDK = struct.Struct("<4sIIQ")  # magic, version, flags, capacity in sectors


class BadImage(Exception):
    """The file is not what its name says, or refers to other files; the text is qemu-img's or the server's."""


def virtual_size(file: Path, kind: str, shown: str) -> int:
    """Bytes a guest sees of a `kind` (qcow2, raw, vmdk, ...) image; `shown` is its path in the texts of BadImage."""
    with open(file, "rb") as handle:
        head = handle.read(512)
    if kind == "qcow2" or (kind == "iso" and head.startswith(MAGIC)):  # what is no disk may still refer to others
        return _qcow2(head, shown)
    if kind == "vmdk":
        return _vmdk(head, shown)
    return file.stat().st_size


def _qcow2(head: bytes, shown: str) -> int:
    if len(head) < HEADER.size or not head.startswith(MAGIC):
        raise BadImage(f"qemu-img: Could not open '{shown}': Image is not in qcow2 format")
    _magic, version, backing, _length, bits, size = HEADER.unpack_from(head)
    if version not in (2, 3):
        raise BadImage(f"qemu-img: Could not open '{shown}': Unsupported qcow2 version {version}")
    if not 9 <= bits <= 21:
        raise BadImage(f"qemu-img: Could not open '{shown}': Unsupported cluster size: 2^{bits}")
    if version == 3 and len(head) >= 80 and struct.unpack_from(">Q", head, 72)[0] & EXTERNAL_DATA:
        raise BadImage(f"{shown}: 'data-file' references are not allowed!")
    if backing:
        raise BadImage(f"backing file not allowed for untrusted image '{shown}'!")
    return int(size)


def _vmdk(head: bytes, shown: str) -> int:
    if len(head) < VMDK.size or not head.startswith(b"KDMV"):
        raise BadImage(f"qemu-img: Could not open '{shown}': invalid VMDK image descriptor")
    return int(VMDK.unpack_from(head)[3]) * 512
