# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A place on a Garage cluster for one test: names of its own, tenants, Ansible, and the removal of what was made.

The cluster is that of the environment, or a private server (``support.garage_server``):

GARAGE_ADMIN_URL, GARAGE_ADMIN_TOKEN   a token that may do everything
GARAGE_S3_ENDPOINT                     of the same cluster
GARAGE_S3_REGION                       default: garage
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, NotFound
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Client, http_sender
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.s3 import s3_client
from support.cutting_proxy import Proxy
from support.garage_server import GarageServer

ROOT = Path(__file__).resolve().parents[4]
VARIABLES = ("GARAGE_ADMIN_URL", "GARAGE_ADMIN_TOKEN", "GARAGE_S3_ENDPOINT", "GARAGE_S3_REGION")
# a cluster of several nodes needs a moment until all of them know of a change, and Garage counts objects behind
PATIENCE_SECONDS = 20
MARK = re.compile(r"\bit[0-9a-f]{8}-")
TOLD = ("name", "action", "changed", "failed")
Result = dict[str, Any]


@dataclass(frozen=True)
class Tenant:
    """An access key as the modules' ``keys`` take it."""

    name: str
    access_key_id: str
    secret_access_key: str = field(repr=False)

    @property
    def option(self) -> dict[str, str]:
        return {
            "name": self.name,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
        }


@dataclass(frozen=True)
class Place:
    """``environment`` are the variables of the modules; ``private`` is a server that the test may stop."""

    environment: Mapping[str, str] = field(repr=False)
    directory: Path
    mark: str
    private: GarageServer | None = None

    @cached_property
    def admin(self) -> Client:
        return Client(http_sender(self.environment["GARAGE_ADMIN_URL"], self.environment["GARAGE_ADMIN_TOKEN"]))

    def name(self, what: str) -> str:
        """Of a bucket, or part of another name, that nobody else on the cluster has."""
        return f"{self.mark}-{what}"

    def tenant(self, what: str) -> Tenant:
        """An id and a secret that no cluster knows yet."""
        return Tenant(f"fediversity/{self.name(what)}", f"GK{secrets.token_hex(12)}", secrets.token_hex(32))

    def s3(self, tenant: Tenant) -> Any:
        """A client that asks once."""
        variables = self.environment
        return s3_client(
            variables["GARAGE_S3_ENDPOINT"],
            variables["GARAGE_S3_REGION"],
            tenant.access_key_id,
            tenant.secret_access_key,
        )

    def info(self, bucket: str) -> Result:
        """What the cluster shows of a bucket."""
        found: Result = self.admin.get("GetBucketInfo", globalAlias=self.name(bucket))
        return found

    def exists(self, bucket: str) -> bool:
        try:
            self.info(bucket)
        except NotFound:
            return False
        return True

    def rights(self, bucket: str) -> dict[str, set[str]]:
        """Permissions by key name, without keys that have none."""
        keys = self.info(bucket)["keys"]
        flags = {key["name"]: {flag for flag, on in key["permissions"].items() if on} for key in keys}
        return {name: on for name, on in flags.items() if on}

    def await_objects(self, bucket: str, number: int) -> None:
        """Wait until the cluster has counted *number* objects in a bucket."""
        eventually(lambda: self.info(bucket)["objects"] == number)

    def foreign_key(self, what: str) -> Tenant:
        """A key of somebody else, whose name is none of ours."""
        made = self.admin.post("CreateKey", {"name": self.name(what)})
        return Tenant(made["name"], made["accessKeyId"], made["secretAccessKey"])

    def allow(self, bucket: str, tenant: Tenant, *flags: str) -> None:
        """Let a key do something with a bucket, past the modules."""
        permissions = dict.fromkeys(flags, True)
        body = {"bucketId": self.info(bucket)["id"], "accessKeyId": tenant.access_key_id, "permissions": permissions}
        self.admin.post("AllowBucketKey", body)

    def keeps_rules(self, bucket: str) -> bool:
        """Whether the cluster takes CORS rules through the admin API; Garage 2.0 drops them without a word."""
        rules = [{"AllowedOrigin": ["*"], "AllowedMethod": ["GET"]}]
        answer = self.admin.post("UpdateBucket", {"corsRules": rules}, id=self.info(bucket)["id"])
        self.admin.post("UpdateBucket", {"corsRules": []}, id=answer["id"])
        return bool(answer.get("corsRules"))

    def through(self, *, admin: Proxy | None = None, s3: Proxy | None = None) -> Place:
        """The same place, reached through proxies."""
        variables = dict(self.environment)
        for name, proxy in (("GARAGE_ADMIN_URL", admin), ("GARAGE_S3_ENDPOINT", s3)):
            if proxy is not None:
                variables[name] = f"http://{proxy.host}:{proxy.port}"
        return replace(self, environment=variables)

    def address(self, variable: str) -> tuple[str, int]:
        """Host and port of a URL of the environment."""
        parts = urlsplit(self.environment[variable])
        return str(parts.hostname), parts.port or {"http": 80, "https": 443}[parts.scheme]

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

    def run(self, module: str, arguments: Mapping[str, Any]) -> Result:
        """One run; it may fail."""
        return self.tasks({module: arguments})[0]

    def tasks(self, *tasks: Mapping[str, Any]) -> list[Result]:
        """Run tasks, each a module of the collection with its arguments and keywords; their results."""
        with self.running(*tasks) as running:
            return running()

    @contextlib.contextmanager
    def running(self, *tasks: Mapping[str, Any]) -> Iterator[Callable[[], list[Result]]]:
        """Start tasks as :meth:`tasks` and go on; calling what is yielded waits for their results."""
        folder = self.directory / secrets.token_hex(4)
        folder.mkdir()
        output = folder / "results.json"
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
        playbook = folder / "play.yml"
        playbook.write_text(
            json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": steps}]), encoding="utf-8"
        )
        process = self.ansible("-i", "localhost,", str(playbook))

        def finish() -> list[Result]:
            printed = process.communicate(timeout=600)[0]
            assert process.returncode == 0, printed
            results: list[Result] = json.loads(output.read_text(encoding="utf-8"))
            return [{"failed": False, **result} for result in results]

        try:
            yield finish
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def ansible(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ansible-playbook for the local connection; its output is in ``stdout``."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "GARAGE_"))}
        python = ["-e", f"ansible_python_interpreter={sys.executable}", "-e", "ansible_connection=local"]
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("ansible-playbook")), *python, *arguments],
            env={
                **inherited,
                **self.environment,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
                "ANSIBLE_HOME": str(self.directory / "home"),
                "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.host_list,ansible.builtin.yaml",
                "ANSIBLE_NOCOLOR": "1",
            },
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )

    def others(self) -> Result:
        """What on the cluster is not of this suite: buckets without what they hold, keys, tokens."""
        buckets = [row for row in self.admin.get("ListBuckets") if not _is_ours(row["globalAliases"])]
        kept = ("globalAliases", "websiteConfig", "corsRules", "lifecycleRules", "quotas")
        infos = {row["id"]: self.admin.get("GetBucketInfo", id=row["id"]) for row in buckets}
        return {
            "buckets": {
                row_id: [
                    *(info.get(name) for name in kept),
                    sorted(json.dumps(key, sort_keys=True) for key in info["keys"]),
                ]
                for row_id, info in infos.items()
            },
            "keys": [row for row in _sorted(self.admin.get("ListKeys")) if not _is_ours([row["name"]])],
            "tokens": [row for row in _sorted(self.admin.get("ListAdminTokens")) if not _is_ours([row["name"]])],
        }

    def clear(self) -> None:
        """Delete everything that carries the mark; what is left makes this fail at the end."""
        errors: list[HostingError] = []
        eraser = self.foreign_key("eraser")
        for row in self.admin.get("ListBuckets"):
            if self._is_mine([*row["globalAliases"], *(local["alias"] for local in row["localAliases"])]):
                with _collected(errors):
                    self._delete_bucket(row["id"], eraser)
        for row in self.admin.get("ListKeys"):
            if self._is_mine([row["name"]]):
                with _collected(errors):
                    self.admin.post("DeleteKey", id=row["id"])
        for row in self.admin.get("ListAdminTokens"):
            if self._is_mine([row["name"]]):
                with _collected(errors):
                    self.admin.post("DeleteAdminToken", id=row["id"])
        assert not errors, errors

    def _delete_bucket(self, bucket_id: str, eraser: Tenant) -> None:
        body = {
            "bucketId": bucket_id,
            "accessKeyId": eraser.access_key_id,
            "permissions": {"read": True, "write": True},
        }
        self.admin.post("AllowBucketKey", body)
        s3 = self.s3(eraser)
        eventually(lambda: bool(s3.head_bucket(Bucket=bucket_id)))
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket_id):
            for item in page.get("Contents", ()):
                s3.delete_object(Bucket=bucket_id, Key=item["Key"])
        self.admin.post("DeleteBucket", id=bucket_id)

    def _is_mine(self, names: list[str]) -> bool:
        return any(self.mark in name for name in names)


def _is_ours(names: list[str]) -> bool:
    """Whether one of the names is of this suite, of whichever test that runs just now."""
    return any(MARK.search(name) for name in names)


def _sorted(rows: list[Result]) -> list[Result]:
    return sorted(rows, key=lambda row: str(row["id"]))


@contextlib.contextmanager
def _collected(errors: list[HostingError]) -> Iterator[None]:
    try:
        yield
    except HostingError as error:
        errors.append(error)


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until *is_so*; an error counts as no, and after a while it is raised."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if is_so():
                return
            assert time.monotonic() < deadline, "it did not happen"
        except Exception:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def chosen() -> bool:
    """Whether the environment names a cluster."""
    return bool(os.environ.get("GARAGE_ADMIN_URL"))


def from_environment(variables: Mapping[str, str], directory: Path, private: GarageServer | None = None) -> Place:
    """A place on the cluster that the variables name."""
    missing = [name for name in VARIABLES[:3] if not variables.get(name)]
    if missing:
        raise RuntimeError(f"set {', '.join(missing)} too")
    environment = {"GARAGE_S3_REGION": "garage", **{name: variables[name] for name in VARIABLES if name in variables}}
    return Place(environment, directory, new_mark(), private)


@contextlib.contextmanager
def used(cluster: Place) -> Iterator[Place]:
    """Names of the block's own, removed at its end; what others have must be the same then."""
    made = replace(cluster, mark=new_mark())
    before = made.others()
    try:
        yield made
    finally:
        made.clear()
    assert made.others() == before


def new_mark() -> str:
    """What the names of one test carry, and nothing else does."""
    return f"it{secrets.token_hex(4)}"


def by_name(result: Result) -> dict[str, Result]:
    return {item["name"]: item for item in result["results"]}
