# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs modules of the collection as processes that can be killed, without Python's start-up time for each.

Listens on the Unix socket named on the command line. Every connection forks a process: it reads the JSON line
``{"module", "arguments"}``, writes its process id, waits for an empty line, and writes what the module printed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import socketserver
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ansible.module_utils import basic
from ansible.parsing.dataloader import DataLoader

PLUGINS = "ansible_collections.fediversity.hosting.plugins"
PLUGIN_FILES = Path(__file__).resolve().parents[3] / "plugins"


def hasty(sleep: Callable[[float], None]) -> Callable[[float], None]:
    """The simulator's tasks take milliseconds, so nobody need wait for longer."""
    return lambda seconds: sleep(min(seconds, 0.03))


class Run(socketserver.StreamRequestHandler):
    """One run of a module, in a process of its own."""

    def handle(self) -> None:
        order = json.loads(self.rfile.readline())
        self.wfile.write(f"{os.getpid()}\n".encode())
        self.rfile.readline()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            run(order["module"], order["arguments"])
        self.wfile.write(printed.getvalue().encode())


def run(name: str, arguments: dict[str, Any]) -> None:
    """Run a module, or its action where it is one of the controller, and print the result."""
    if (PLUGIN_FILES / "action" / f"{name}.py").exists():
        action = importlib.import_module(f"{PLUGINS}.action.{name}")
        task = SimpleNamespace(action=name, args=arguments, check_mode=False, diff=False, async_val=0)
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=""))
        plugin = action.ActionModule(task, connection, None, DataLoader(), None, None)
        print(json.dumps(plugin.run(task_vars={})))
        return

    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
    basic._ANSIBLE_PROFILE = "legacy"
    importlib.import_module(f"{PLUGINS}.modules.{name}").main()


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Forks for every connection."""


def main(path: str) -> None:
    time.sleep = hasty(time.sleep)
    importlib.import_module("proxmoxer.backends.https")
    for file in PLUGIN_FILES.glob("*/proxmox_*.py"):
        importlib.import_module(f"{PLUGINS}.{file.parent.name}.{file.stem}")
    with Server(path, Run) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
