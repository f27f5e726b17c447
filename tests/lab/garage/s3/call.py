# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every operation on a bucket gets, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.garage.objects import Objects
from lab.garage.s3 import xml
from lab.garage.store import Store


@dataclass(frozen=True)
class Call:
    """A request that was let through; ``bucket`` is the name it used for the bucket, and ``key`` may be empty."""

    store: Store
    region: str
    key_id: str
    bucket: str
    bucket_id: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    trailer: Mapping[str, str]

    @property
    def objects(self) -> Objects:
        return self.store.tables.objects

    @property
    def row(self) -> dict[str, Any]:
        """The bucket's row, to read."""
        row: dict[str, Any] = self.store.tables["buckets"][self.bucket_id]
        return row


@dataclass(frozen=True)
class Answer:
    """``body`` is sent with ``content_type`` if that is not empty."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def xml_answer(name: str, value: dict[str, Any]) -> Answer:
    return Answer(body=xml.document(name, value), content_type="application/xml")
