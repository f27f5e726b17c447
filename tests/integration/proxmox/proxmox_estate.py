# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's modules and roles through ansible-playbook against one server, and the removal of what they made."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from proxmox_api import ApiError, path
from proxmox_server import Server

ROOT = Path(__file__).resolve().parents[3]
TOLD = ("name", "action", "changed", "failed")
Result = dict[str, Any]


@dataclass(frozen=True)
class Estate:
    """A pool of its own on the server, and Ansible."""

    server: Server
    directory: Path

    def name(self, what: str) -> str:
        """A name that nobody else on the server has."""
        return f"{self.server.mark}-{what}"

    def machine(self, what: str, **fields: Any) -> dict[str, Any]:
        """The smallest machine with a disk; *fields* are options of proxmox_vms."""
        disk = {"storage": self.server.storage, "import_from": self.server.image, "format": self.server.disk_format}
        return {
            "name": self.name(what),
            "node": self.server.node,
            "pool": self.server.pool,
            "cores": 1,
            "memory": 256,
            "disk": disk,
            # nobody answers in an empty image
            "shutdown_timeout": 2,
            **fields,
        }

    def vms(self, *items: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of proxmox_vms."""
        return {"vms": list(items), "vmid_range": self.server.ids}

    def change(self, module: str, arguments: Mapping[str, Any]) -> Result:
        """Check mode, the real thing, and once more: the prediction must be right, the last run find nothing to do."""
        predicted, result, again = self.tasks(
            {module: arguments, "check_mode": True}, {module: arguments}, {module: arguments}
        )
        assert not result["failed"], result["msg"]
        assert not predicted["failed"], predicted["msg"]
        assert [[item[key] for key in TOLD] for item in predicted["results"]] == [
            [item[key] for key in TOLD] for item in result["results"]
        ]
        assert predicted["diff"] == result["diff"]
        assert result["changed"], result["msg"]
        assert (again["changed"], again["failed"]) == (False, False), (again["msg"], again["diff"])
        return result

    def machines(self, *items: Mapping[str, Any]) -> list[Result]:
        """The results of :meth:`change` for machines, in the order of *items*."""
        results = {one["name"]: one for one in self.change("proxmox_vms", self.vms(*items))["results"]}
        return [results[item["name"]] for item in items]

    def run(self, module: str, arguments: Mapping[str, Any]) -> Result:
        """One run; it may fail."""
        return self.tasks({module: arguments})[0]

    def tasks(self, *tasks: Mapping[str, Any]) -> list[Result]:
        """Run tasks, each a module of the collection with its arguments and keywords; their results."""
        output = self.directory / "results.json"
        names = [f"result_{number}" for number in range(len(tasks))]
        steps: list[dict[str, Any]] = [
            {
                **{key if "_mode" in key else f"fediversity.hosting.{key}": value for key, value in task.items()},
                "register": name,
                "ignore_errors": True,
            }
            for name, task in zip(names, tasks, strict=True)
        ]
        kept = "{{ [" + ", ".join(names) + "] | to_json }}"
        steps.append({"ansible.builtin.copy": {"content": kept, "dest": str(output), "mode": "0600"}})
        self.play({"hosts": "localhost", "gather_facts": False, "tasks": steps})
        results: list[Result] = json.loads(output.read_text(encoding="utf-8"))
        return [{"failed": False, **result} for result in results]

    def play(self, *plays: Mapping[str, Any]) -> str:
        """Run plays that must not fail; what was printed."""
        playbook = self.directory / "play.yml"
        playbook.write_text(json.dumps(plays), encoding="utf-8")
        code, output = self.ansible("-i", "localhost,", str(playbook))
        assert code == 0, output
        return output

    def ansible(self, *arguments: str) -> tuple[int, str]:
        """Run ansible-playbook; exit code and output."""
        taken = ("ANSIBLE_", "PROXMOX_")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(taken)},
            **self.server.environment,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_HOME": str(self.directory / "home"),
            "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.host_list,ansible.builtin.yaml",
            "ANSIBLE_NOCOLOR": "1",
        }
        python = ["-e", f"ansible_python_interpreter={sys.executable}", "-e", "ansible_connection=local"]
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), *python, *arguments],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=1800,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


def make(server: Server) -> Estate:
    """The pool is made; everything else is made by tests."""
    server.api("POST", "/pools", poolid=server.pool)
    return Estate(server, Path(tempfile.mkdtemp(prefix="proxmox-")))


def remove(server: Server) -> None:
    """Delete everything that carries the suite's mark, as far as possible; what is left makes this fail at the end."""
    api = server.api
    errors: list[str] = []

    @contextlib.contextmanager
    def tolerant() -> Any:
        try:
            yield
        except ApiError as error:
            errors.append(str(error))

    rows = [
        row
        for row in api("GET", "/cluster/resources", type="vm")
        if row.get("pool") == server.pool or f"fediversity-machine-{server.mark}-" in str(row.get("tags", ""))
    ]
    # clones before the templates they may hang on
    for row in sorted(rows, key=lambda row: (int(row.get("template", 0)), -int(row["vmid"]))):
        with tolerant():
            _remove_vm(server, row)
    for rule in _listed(server, "/cluster/ha/rules"):
        if str(rule.get("rule", "")).startswith(f"fediversity-{server.mark}-"):
            with tolerant():
                api("DELETE", f"/cluster/ha/rules/{rule['rule']}")
    for node in {server.node, server.second_node} - {""}:
        for row in _listed(server, f"/nodes/{node}/storage/{server.image_storage}/content"):
            if f"import/fediversity-{server.mark}" in str(row["volid"]):
                with tolerant():
                    volume = quote(row["volid"], safe="")
                    api("DELETE", f"/nodes/{node}/storage/{server.image_storage}/content/{volume}")
    for user in _listed(server, "/access/users"):
        if str(user["userid"]).startswith(server.mark):
            with tolerant():
                api("DELETE", f"/access/users/{user['userid']}")
    for pool in _listed(server, "/pools"):
        if str(pool["poolid"]).startswith(server.mark):
            with tolerant():
                api("DELETE", "/pools", poolid=pool["poolid"])
    assert not errors, "\n".join(errors)


def _listed(server: Server, where: str) -> Sequence[Mapping[str, Any]]:
    """A list, empty where the server does not give one."""
    try:
        return list(server.api("GET", where))
    except ApiError:
        return []


def _remove_vm(server: Server, row: Mapping[str, Any]) -> None:
    api, vm = server.api, path(row)
    with contextlib.suppress(ApiError):
        api("DELETE", f"/cluster/ha/resources/vm:{row['vmid']}")
    if not row.get("template"):
        with contextlib.suppress(ApiError):
            api.do("POST", f"{vm}/status/stop")
    with contextlib.suppress(ApiError):
        api("PUT", f"{vm}/config", delete="protection")
    api.do("DELETE", vm, **{"purge": 1, "destroy-unreferenced-disks": 1})
