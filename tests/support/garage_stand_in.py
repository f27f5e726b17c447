# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stands in for the program ``garage`` in tests: reads its configuration file more strictly, serves the simulator.

Called as ``garage -c FILE server``. What Garage 2 does not know, or takes from elsewhere, ends it with an error.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any

from lab.garage.server import serve_garage
from lab.garage.store import NO_LAYOUT

ADDRESS = re.compile(r"(\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\]):(\d+)\Z")
SIZE = re.compile(r"\d+ ?([KMGT](iB|B)?)?\Z")
SECRET = re.compile(r"[0-9a-f]{64}\Z")
TEXT = re.compile(r".+\Z")
ENGINE = re.compile(r"(lmdb|sqlite|fjall)\Z")
# Config in src/util/config.rs: what must be there, and what may be; what has another type is none of ours
REQUIRED: dict[str, dict[str, re.Pattern[str] | type]] = {
    "": {
        "metadata_dir": TEXT,
        "data_dir": TEXT,
        "replication_factor": int,
        "rpc_bind_addr": ADDRESS,
        "rpc_secret": SECRET,
    },
    "s3_api": {"s3_region": TEXT, "api_bind_addr": ADDRESS},
    "admin": {"api_bind_addr": ADDRESS, "admin_token": TEXT},
}
OPTIONAL: dict[str, dict[str, re.Pattern[str] | type]] = {
    "": {
        "allow_punycode": bool,
        "block_size": SIZE,
        "data_fsync": bool,
        "db_engine": ENGINE,
        "disable_scrub": bool,
        "lmdb_map_size": SIZE,
        "metadata_fsync": bool,
        "rpc_public_addr": ADDRESS,
    },
    "s3_api": {"root_domain": TEXT},
    "s3_web": {"bind_addr": ADDRESS, "root_domain": TEXT},
    "admin": {"metrics_token": TEXT, "metrics_require_token": bool},
}


def checked(path: Path) -> dict[str, Any]:
    """The configuration; ValueError tells what is wrong with it."""
    config = tomllib.loads(path.read_text(encoding="utf-8"))
    tables = {"": {name: value for name, value in config.items() if not isinstance(value, dict)}}
    tables |= {name: value for name, value in config.items() if isinstance(value, dict)}
    for name, table in tables.items():
        known = {**REQUIRED.get(name, {}), **OPTIONAL.get(name, {})}
        for key, value in table.items():
            if key not in known:
                raise ValueError(f"unknown field `{name}.{key}`")
            kind = known[key]
            if isinstance(kind, type):
                # True is no number
                fits = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
            else:
                fits = isinstance(value, str) and kind.match(value)
            if not fits:
                raise ValueError(f"invalid value for `{name}.{key}`")
    missing = [f"{name}.{key}" for name, keys in REQUIRED.items() for key in keys.keys() - tables.get(name, {}).keys()]
    if missing:
        raise ValueError(f"missing field `{missing[0]}`")
    if path.stat().st_mode & 0o077:
        raise ValueError("others can read the secrets in the configuration file")
    return config


async def serve(config: dict[str, Any]) -> None:
    host, port = _address(config["admin"]["api_bind_addr"])
    s3_host, s3_port = _address(config["s3_api"]["api_bind_addr"])
    if s3_host != host:
        raise ValueError("this stand-in has one address")
    directory = Path(config["metadata_dir"])
    runner = await serve_garage(
        state=directory / "tables.json",
        host=host,
        port=port,
        s3_port=s3_port,
        admin_token=config["admin"]["admin_token"],
        access_log=directory / "access.log",
        region=config["s3_api"]["s3_region"],
        layout=NO_LAYOUT,
    )
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await runner.cleanup()
    (directory / "ended").touch()


def _address(text: str) -> tuple[str, int]:
    host, _colon, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print("garage v2.3.0 [features: k2v, lmdb, sqlite, metrics, bundled-libs]")
        return
    try:
        if len(sys.argv) != 4 or sys.argv[1] != "-c" or sys.argv[3] != "server":
            raise ValueError(f"unexpected arguments {sys.argv[1:]}")
        overriding = sorted(name for name in os.environ if name.startswith("GARAGE_"))
        if overriding:
            raise ValueError(f"the environment would replace settings: {overriding}")
        config = checked(Path(sys.argv[2]))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    asyncio.run(serve(config))


if __name__ == "__main__":
    main()
