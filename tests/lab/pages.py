# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fetch every enabled deployment's page by name; to be run inside the lab: ``./lab exec -- python tests/lab/pages.py``.

The lab's stand-in of an application answers ``?format=json`` with what it was given and what it could prove with it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))

from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.report import Row, rows
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import load_fleet

TIMEOUT = 10  # seconds


@dataclass(frozen=True)
class Page:
    """What one URL answered; ``status`` 0 and ``error`` when nothing did."""

    url: str
    status: int
    content: dict[str, Any]
    error: str = ""


def fetch(row: Row) -> Page:
    """Fetch the page of one deployment, resolving its name like any client in the lab."""
    try:
        with urllib.request.urlopen(f"{row.url}?format=json", timeout=TIMEOUT) as answer:
            return Page(row.url, answer.status, json.load(answer))
    except urllib.error.HTTPError as error:
        body = error.read().decode(errors="replace")
        return Page(row.url, error.code, {}, body[:200])
    except (OSError, ValueError) as error:
        return Page(row.url, 0, {}, str(error))


def main() -> int:
    """Print what every page answered; the exit code is 1 if any did not answer 200."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    fleet = load_fleet(connect(os.environ["FEDIVERSITY_DATABASE_URL"]))
    pages = [fetch(row) for row in rows(fleet, "http") if row.state != "disabled"]
    if arguments.json:
        json.dump([asdict(page) for page in pages], sys.stdout)
    else:
        print(tabulate([_shown(page) for page in pages], headers="keys", maxcolwidths=44))
    return 0 if all(page.status == 200 for page in pages) else 1


def _shown(page: Page) -> dict[str, Any]:
    """The columns that a person wants to see."""
    instance, database = page.content.get("instance", {}), page.content.get("database", {})
    return {
        "URL": page.url,
        "HTTP": page.status or page.error,
        "title": instance.get("settings", {}).get("title", ""),
        "logged in to its database as": database.get("user", "") if database.get("ok") else database.get("error", ""),
        "key id": page.content.get("storage", {}).get("accessKeyId", ""),
        "system": str(page.content.get("system", ""))[11:19],
    }


if __name__ == "__main__":
    sys.exit(main())
