# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real Garage 2 of one node, where a program named ``garage`` is on PATH.

Its configuration file is written, the program started, and the node gets the whole cluster layout through the admin
API. Keys of the file: "Configuration file format" of Garage's reference manual.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.paths import write_private

START_SECONDS = 60
STOP_SECONDS = 20
CAPACITY = 10 * 10**9
ZONE = "lab"


@dataclass(frozen=True)
class Plan:
    """Where a node listens and keeps its data; every address is HOST:PORT."""

    directory: Path
    admin: str
    s3: str
    web: str
    rpc: str
    region: str
    admin_token: str = field(repr=False)

    @property
    def config(self) -> Path:
        return self.directory / "garage.toml"

    @property
    def log(self) -> Path:
        return self.directory / "garage.log"


def program() -> str | None:
    """The path of ``garage``, None if there is none."""
    return shutil.which("garage")


def engine(garage: str) -> str:
    """The database that this build has, by what it says of itself: LMDB, which is Garage's default, or SQLite."""
    told = subprocess.run([garage, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    features = re.search(r"\[features: ([^\]]*)\]", told.stdout)
    names = re.split(r",\s*", features[1]) if features else ["lmdb"]
    return "lmdb" if "lmdb" in names else "sqlite"


def configuration(plan: Plan, rpc_secret: str, db_engine: str) -> str:
    """The configuration file; JSON's strings are TOML's."""
    path = plan.directory.absolute()
    # of address space; the default of 1 TiB does not fit everywhere
    lmdb = {"lmdb_map_size": "4GiB"} if db_engine == "lmdb" else {}
    values: dict[str, dict[str, Any]] = {
        "": {
            "metadata_dir": str(path / "meta"),
            "data_dir": str(path / "data"),
            "db_engine": db_engine,
            **lmdb,
            "replication_factor": 1,
            "rpc_secret": rpc_secret,
            "rpc_bind_addr": plan.rpc,
            "rpc_public_addr": plan.rpc,
        },
        "s3_api": {"s3_region": plan.region, "api_bind_addr": plan.s3},
        "s3_web": {"bind_addr": plan.web, "root_domain": ".web.lab.test"},
        "admin": {"api_bind_addr": plan.admin, "admin_token": plan.admin_token},
    }
    lines = []
    for table, entries in values.items():
        lines += ["", f"[{table}]"] if table else []
        lines += [f"{name} = {json.dumps(value)}" for name, value in entries.items()]
    return "\n".join(lines) + "\n"


def start(garage: str, plan: Plan) -> subprocess.Popen[bytes]:
    """Start the node in ``plan.directory``, which it may know already, and wait until it serves.

    :param garage: path of the program.
    :raises RuntimeError: it does not serve within a minute, with its log. It does not run then.
    """
    plan.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not plan.config.exists():
        write_private(plan.config, configuration(plan, secrets.token_hex(32), engine(garage)))
    # variables such as GARAGE_ADMIN_TOKEN replace what is in the file
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GARAGE_")}
    with plan.log.open("ab") as log:
        process = subprocess.Popen(
            [garage, "-c", str(plan.config), "server"],
            cwd=plan.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _make_ready(plan, process)
    except BaseException:
        stop(process)
        raise
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the node: it is asked, then killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _make_ready(plan: Plan, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS

    def wait(path: str) -> Any:
        """The first answer to *path* that is no error."""
        while True:
            try:
                return _call(plan, path)
            except (OSError, ValueError) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    log = plan.log.read_text(encoding="utf-8", errors="replace")[-4000:]
                    raise RuntimeError(f"garage does not serve {path}: {error}\n{log}") from error
            time.sleep(0.05)

    node = next(node for node in wait("/v2/GetClusterStatus")["nodes"] if node["isUp"])
    layout = wait("/v2/GetClusterLayout")
    if not layout["roles"]:
        role = {"id": node["id"], "zone": ZONE, "capacity": CAPACITY, "tags": []}
        _call(plan, "/v2/UpdateClusterLayout", {"roles": [role]})
        _call(plan, "/v2/ApplyClusterLayout", {"version": layout["version"] + 1})
    # 503 until the layout is in use
    wait("/health")
    wait("/v2/ListKeys")


def _call(plan: Plan, path: str, body: Any = None) -> Any:
    """The JSON answer of the admin API, None for another one; OSError for an error or none."""
    request = urllib.request.Request(
        f"http://{plan.admin}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {plan.admin_token}", "Content-Type": "application/json"},
    )
    try:
        # not through a proxy of the environment
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            text = answer.read()
            return json.loads(text) if answer.headers.get_content_type() == "application/json" else None
    except urllib.error.HTTPError as error:
        with error:
            raise OSError(f"{error}: {error.read().decode(errors='replace')}") from error
