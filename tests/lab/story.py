# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of the demo, which the integration tests take too: import, converge, break, fix."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
OPERATORS = ROOT / "inventories" / "lab" / "operators.yml"
# an address of TEST-NET-1 (RFC 5737), which no machine of the lab can reach
WRONG_ADDRESS = {"address": "192.0.2.10", "prefixLength": 24}


@dataclass(frozen=True)
class Run:
    """How a command ended; ``output`` holds standard output and error."""

    code: int
    output: str
    seconds: float

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """Ansible's closing numbers: host -> {ok, changed, unreachable, failed, ...}."""
        lines = self.output.rpartition("PLAY RECAP")[2].splitlines()
        found = (re.match(r"(\S+)\s+: (ok=.*)", line) for line in lines)
        return {
            match[1]: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", match[2])}
            for match in found
            if match
        }

    @property
    def changed(self) -> int:
        """The sum of ``changed`` over all hosts."""
        return sum(host["changed"] for host in self.recap.values())


@dataclass(frozen=True)
class Lab:
    """A lab of its own in the folder *state*."""

    state: Path
    show: bool = False

    def command(self, *arguments: str) -> Run:
        """Run ``./lab ARGUMENTS``; the output is shown while it comes if ``show`` is set."""
        environment = {**os.environ, "LAB_STATE": str(self.state), "PYTHONUNBUFFERED": "1"}
        start = time.monotonic()
        lines = []
        with subprocess.Popen(
            [str(ROOT / "lab"), *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for line in process.stdout or ():
                lines.append(line)
                if self.show:
                    sys.stdout.write(line)
                    sys.stdout.flush()
        return Run(process.returncode, "".join(lines), time.monotonic() - start)

    def execute(self, *command: str) -> Run:
        """Run a command inside the lab."""
        return self.command("exec", "--", *command)

    def import_operators(self, document: Mapping[str, Any] | None = None) -> Run:
        """Import *document*, by default the lab's own operators.yml, into the operator database."""
        path = OPERATORS
        if document is not None:
            path = self.state / "operators.yml"
            path.write_text(yaml.safe_dump(dict(document), allow_unicode=True), encoding="utf-8")
        arguments = ("-i", "localhost,", "playbooks/import.yml", "-e", json.dumps({"fediversity_operators": str(path)}))
        return self.execute("ansible-playbook", *arguments)

    def site(self, *arguments: str) -> Run:
        """Run site.yml."""
        return self.execute("ansible-playbook", "site.yml", *arguments)

    def pages(self) -> list[dict[str, Any]]:
        """What every enabled deployment's URL answers, fetched by name inside the lab."""
        quiet = Lab(self.state).execute("python", "tests/lab/pages.py", "--json")
        return list(json.loads(quiet.output))


def operators() -> dict[str, Any]:
    """The lab's own operators.yml."""
    return dict(yaml.safe_load(OPERATORS.read_text(encoding="utf-8")))


def application(document: Mapping[str, Any], operator: str, deployment: str) -> dict[str, Any]:
    """The first application of a deployment in *document*."""
    return next(
        found["applications"][0]
        for owner in document["operators"]
        if owner["name"] == operator
        for found in owner["deployments"]
        if found["name"] == deployment
    )


def with_title(document: Mapping[str, Any], operator: str, deployment: str, title: str) -> dict[str, Any]:
    """A copy in which the deployment has another title."""
    changed = copy.deepcopy(dict(document))
    application(changed, operator, deployment)["settings"]["title"] = title
    return changed


def with_wrong_address(document: Mapping[str, Any], operator: str, deployment: str) -> dict[str, Any]:
    """A copy in which the deployment's NixOS options give its machine an address that nobody can reach."""
    changed = copy.deepcopy(dict(document))
    addresses: Sequence[Mapping[str, Any]] = [WRONG_ADDRESS]
    application(changed, operator, deployment)["nixos_options"] = {
        "networking": {"interfaces": {"eth0": {"ipv4": {"addresses": addresses}}}}
    }
    return changed
