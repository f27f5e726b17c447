# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""proxmox_tenants: what is made, who keeps the secret, what a crash leaves, and that tenants do not see each other."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.fediversity.hosting.plugins.action.proxmox_tenants import TENANT, ActionModule
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    Denied,
    HostingError,
    InvalidInput,
    NotFound,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.module import LIMIT_ARGUMENTS
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, connect
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.connection import CONNECTION_ARGUMENTS
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.desired import desired_machines
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.provider import VirtualMachines
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.tenant_model import (
    ROLES,
    VM_PRIVILEGES,
    desired_tenants,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.tenants import Tenants
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile
from ansible_collections.fediversity.hosting.plugins.modules import proxmox_tenants as proxmox_tenants_doc
from ansible_collections.fediversity.hosting.plugins.plugin_utils.action import DATABASE_ARGUMENTS, SECRET_KEY_ARGUMENTS
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect as open_database
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import upgrade
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.secrets import SecretStore
from ansible_collections.fediversity.hosting.plugins.plugin_utils.proxmox_tokens import DatabaseTokens, VaultTokens
from conftest import Simulator
from cryptography.fernet import Fernet
from lab.proxmox.faults import transient

ROOT = Path(__file__).resolve().parents[3]
BASE: dict[str, Any] = {"state": "present", "token": "fediversity", "storages": ["local"], "networks": ["vmbr0"]}


@dataclass
class Memory:
    """A store for tests; *full* makes writing fail as a crash at that moment would."""

    secrets: dict[str, str] = field(default_factory=dict)
    full: bool = False

    def get(self, tenant: str) -> str | None:
        return self.secrets.get(tenant)

    def put(self, tenant: str, user: str, token: str, secret: str) -> None:
        if self.full:
            raise Denied("no space left on device")
        self.secrets[tenant] = secret

    def forget(self, tenant: str) -> None:
        self.secrets.pop(tenant, None)

    def place(self, tenant: str) -> Mapping[str, str]:
        return {"secret_ref": tenant}


@dataclass
class Estate:
    simulator: Simulator
    store: Memory = field(default_factory=Memory)

    def run(self, *items: dict[str, Any], check: bool = False, more: frozenset[str] = frozenset()) -> dict[str, Any]:
        client = replace(self.simulator.client(), sleep=lambda seconds: time.sleep(seconds / 100))
        provider = Tenants(client, self.store, self.works, more)
        return reconcile(provider, desired_tenants([{**BASE, **item} for item in items]), check=check)

    def works(self, user: str, token: str, secret: str) -> bool:
        try:
            self.client(user.partition("@")[0], token, secret).get("/version")
        except Denied:
            return False
        return True

    def client(self, name: str, token: str = "fediversity", secret: str | None = None) -> Client:
        """What the tenant itself uses."""
        own = replace(
            self.simulator.connection(),
            user=f"{name}@pve",
            token_id=token,
            token_secret=secret or self.store.secrets[name],
        )
        return connect(own)

    def grants(self, name: str) -> set[tuple[str, str, str]]:
        rows = self.simulator.client().get("/access/acl")
        mine = {f"{name}@pve", f"{name}@pve!fediversity"}
        return {(row["ugid"], row["path"], row["roleid"]) for row in rows if row["ugid"] in mine}


@pytest.fixture
def estate(simulator: Simulator) -> Estate:
    return Estate(simulator)


def one(result: dict[str, Any]) -> dict[str, Any]:
    (item,) = result["results"]
    assert not item["failed"], item
    return dict(item)


def test_everything_is_made_and_then_nothing_changes(estate: Estate) -> None:
    checked = estate.run({"name": "alice"}, check=True)
    assert (one(checked)["action"], estate.store.secrets, estate.grants("alice")) == ("create", {}, set())
    result = estate.run({"name": "alice"})
    assert one(result) | {"msg": ""} == {
        "name": "alice",
        "action": "create",
        "changed": True,
        "failed": False,
        "msg": "",
        "pool": "alice",
        "user": "alice@pve",
        "token": "fediversity",
        "secret_ref": "alice",
    }
    assert result["diff"] == checked["diff"]
    admin = estate.simulator.client()
    for role, privileges in ROLES.items():
        assert set(admin.get(f"/access/roles/{role}")) == privileges
    assert admin.get("/access/users/alice@pve/token/fediversity")["privsep"] == 1
    paths = {
        ("/pool/alice", "FediversityVms"),
        ("/storage/local", "FediversityDisks"),
        ("/sdn/zones/localnetwork/vmbr0", "FediversityNetworks"),
    }
    subjects = ("alice@pve", "alice@pve!fediversity")
    assert estate.grants("alice") == {(subject, *grant) for subject in subjects for grant in paths}
    estate.simulator.requests()
    assert estate.run({"name": "alice"})["changed"] is False
    sent = estate.simulator.requests()
    assert all(line.startswith("GET ") for line in sent)
    assert len(sent) == 6


def test_the_secret_is_in_nothing_that_is_told(estate: Estate) -> None:
    told = json.dumps([estate.run({"name": "alice"}), estate.run({"name": "alice", "rotate": True})])
    assert estate.store.secrets["alice"] not in told


def test_rights_are_exact_and_foreign_ones_stay(estate: Estate) -> None:
    estate.run({"name": "alice", "templates": [9000]})
    admin = estate.simulator.client()
    admin.post("/access/users", userid="else@pve")
    admin.put("/access/acl", path="/pool/alice", users="else@pve", roles="PVEVMUser")
    admin.put("/access/acl", path="/", users="alice@pve", roles="Administrator")
    admin.put("/access/acl", path="/pool/alice", tokens="alice@pve!fediversity", roles="FediversityVms", delete=True)
    admin.put("/access/roles/FediversityVms", privs="VM.Audit,VM.Console")
    admin.put("/access/users/alice@pve/token/fediversity", privsep=False)
    secret = estate.store.secrets["alice"]
    result = estate.run({"name": "alice"})
    assert one(result)["action"] == "update"
    shown = result["diff"]["before"]["alice"]
    assert "/ Administrator" in shown["user_grants"]
    assert shown["roles"]["FediversityVms"] == ["VM.Audit", "VM.Console"]
    assert not any(path in ("/", "/vms/9000") for _subject, path, _role in estate.grants("alice"))
    assert ("alice@pve!fediversity", "/pool/alice", "FediversityVms") in estate.grants("alice")
    assert set(admin.get("/access/roles/FediversityVms")) == VM_PRIVILEGES
    assert admin.get("/access/users/alice@pve/token/fediversity")["privsep"] == 1
    rows = admin.get("/access/acl")
    assert [row["ugid"] for row in rows if row["roleid"] == "PVEVMUser"] == ["else@pve"]
    assert estate.store.secrets["alice"] == secret
    assert estate.run({"name": "alice"})["changed"] is False


def test_more_privileges_for_all_pools(estate: Estate) -> None:
    estate.run({"name": "alice"}, more=frozenset({"VM.Snapshot"}))
    privileges = set(estate.simulator.client().get("/access/roles/FediversityVms"))
    assert privileges == VM_PRIVILEGES | {"VM.Snapshot"}


def test_a_crash_before_the_secret_is_stored_ends_in_a_new_token(estate: Estate) -> None:
    estate.store.full = True
    result = estate.run({"name": "alice"})
    assert result["failed"]
    assert "no space left" in result["msg"]
    assert estate.simulator.client().get("/access/users/alice@pve/token") != []
    estate.store.full = False
    assert one(estate.run({"name": "alice"}))["action"] == "update"
    assert estate.client("alice").get("/version")
    assert estate.run({"name": "alice"})["changed"] is False
    assert len(estate.grants("alice")) == 6


def test_a_secret_that_is_not_the_tokens_is_made_anew(estate: Estate) -> None:
    estate.run({"name": "alice"})
    estate.store.secrets["alice"] = "11111111-2222-3333-4444-555555555555"
    assert one(estate.run({"name": "alice"}))["action"] == "update"
    assert estate.client("alice").get("/version")


def test_rotation_ends_the_old_secret_and_happens_once_in_a_run(estate: Estate) -> None:
    estate.run({"name": "alice"})
    old = estate.store.secrets["alice"]
    checked = estate.run({"name": "alice", "rotate": True}, check=True)
    assert (checked["changed"], estate.store.secrets["alice"]) == (True, old)
    estate.simulator.requests()
    result = estate.run({"name": "alice", "rotate": True})
    assert one(result)["action"] == "update"
    posts = [line for line in estate.simulator.requests() if line.startswith("POST /access/users/")]
    assert len(posts) == 1
    assert estate.store.secrets["alice"] != old
    assert len(estate.grants("alice")) == 6
    with pytest.raises(Denied):
        estate.client("alice", secret=old).get("/version")


@pytest.mark.parametrize("seed", range(3))
def test_tenants_while_a_fifth_of_the_requests_fails(estate: Estate, tmp_path: Path, seed: int) -> None:
    file = tmp_path / "state" / "faults.toml"
    rules = [
        f'[[rule]]\nkind = "{rule.kind}"\nrate = {rule.rate}\nafter = {str(rule.after).lower()}\n'
        for rule in transient(0.2)
    ]
    file.write_text(f"seed = {seed}\n" + "".join(rules), encoding="utf-8")
    for _turn in range(10):
        result = estate.run({"name": "alice"}, {"name": "bob"})
        if not result["failed"]:
            break
    assert not result["failed"], result
    file.unlink()
    assert estate.run({"name": "alice"}, {"name": "bob"})["changed"] is False
    for name in ("alice", "bob"):
        assert len(estate.grants(name)) == 6
        assert len(estate.simulator.client().get(f"/access/users/{name}@pve/token")) == 1


@pytest.mark.parametrize("what", ["pool", "user"])
def test_what_belongs_to_others_is_refused(estate: Estate, what: str) -> None:
    admin = estate.simulator.client()
    if what == "pool":
        admin.post("/pools", poolid="alice", comment="mine")
    else:
        admin.post("/access/users", userid="alice@pve")
    result = estate.run({"name": "alice"}, {"name": "bob"})
    assert [(item["name"], item["action"]) for item in result["results"]] == [("alice", "refused"), ("bob", "create")]
    assert "is there and not ours" in result["msg"]
    assert "'fediversity:operator:alice'" in result["msg"]
    assert estate.grants("alice") == set()


def test_a_disabled_user_is_left_alone(estate: Estate) -> None:
    estate.run({"name": "alice"})
    estate.simulator.client().put("/access/users/alice@pve", enable=False)
    secret = estate.store.secrets["alice"]
    result = estate.run({"name": "alice"})
    assert "the user alice@pve is disabled" in result["msg"]
    assert estate.store.secrets["alice"] == secret


def test_a_tenant_with_machines_stays(estate: Estate) -> None:
    estate.run({"name": "alice"}, {"name": "bob"})
    admin = estate.simulator.client()
    tasks.wait(admin, admin.post("/nodes/pve1/qemu", vmid=100, pool="alice"), budget=60)
    gone = {"name": "alice", "state": "absent"}
    for check in (True, False):
        result = estate.run(gone, check=check)
        assert (result["results"][0]["action"], result["failed"]) == ("refused", True)
        assert "the pool alice still has qemu/100" in result["msg"]
    assert estate.works("alice@pve", "fediversity", estate.store.secrets["alice"])
    tasks.wait(admin, admin.delete("/nodes/pve1/qemu/100"), budget=60)
    assert one(estate.run(gone))["action"] == "delete"
    assert set(estate.store.secrets) == {"bob"}
    assert estate.grants("alice") == set()
    assert {row["poolid"] for row in admin.get("/pools")} == {"bob"}
    assert "alice@pve" not in {row["userid"] for row in admin.get("/access/users")}
    assert estate.run(gone)["changed"] is False
    assert estate.run({"name": "bob"})["changed"] is False


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": "Alice"}, "is no valid name"),
        ({"name": "alice", "user": "alice"}, "alice, user: 'alice' cannot be used"),
        ({"name": "alice", "user": "alice@pve!x"}, "cannot be used"),
        ({"name": "alice", "token": "1x"}, "alice, token"),
        ({"name": "alice", "pool": "a/b"}, "alice, pool"),
        ({"name": "alice", "storages": ["../x"]}, "alice, storages"),
        ({"name": "alice", "networks": ["vmbr0/../.."]}, "alice, networks"),
    ],
)
def test_items_that_cannot_be_used(fields: dict[str, Any], text: str) -> None:
    (tenant,) = desired_tenants([{**BASE, **fields}])
    assert text in str(tenant.problem)


def test_two_tenants_of_one_pool() -> None:
    with pytest.raises(InvalidInput, match="two tenants have the pool shared"):
        desired_tenants([{**BASE, "name": "alice", "pool": "shared"}, {**BASE, "name": "bob", "pool": "shared"}])


def test_the_documentation_names_every_option_of_the_action() -> None:
    documented = yaml.safe_load(proxmox_tenants_doc.DOCUMENTATION)["options"]
    fragments = {*CONNECTION_ARGUMENTS, *LIMIT_ARGUMENTS, *DATABASE_ARGUMENTS, *SECRET_KEY_ARGUMENTS}
    assert set(ActionModule.ARGUMENTS) == set(documented) | fragments
    options = documented["tenants"]["suboptions"]
    assert set(options) == set(TENANT)
    for name, option in options.items():
        for key in ("type", "default", "choices", "elements", "required"):
            assert option.get(key) == TENANT[name].get(key), (name, key)


# that tenants do not see each other

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB3bbFXFu/Z/HCvAd5NURtwLvxRlGpwyjaIs58FYevWg"
MACHINE: dict[str, Any] = {
    "node": "pve1",
    "cores": 1,
    "memory": 512,
    "disk": {"storage": "local", "import_from": "local:import/nixos.qcow2", "size": 5},
    "networks": [{"bridge": "vmbr0", "model": "virtio", "firewall": False}],
    "cloud_init": {"user": "root", "ssh_keys": [KEY]},
    "agent": True,
}


def machines(client: Client, *items: dict[str, Any]) -> dict[str, Any]:
    return reconcile(VirtualMachines(client, 60), desired_machines(list(items)))


@pytest.fixture
def neighbours(estate: Estate) -> tuple[Client, Client, int]:
    """Clients of alice and bob, and bob's machine."""
    estate.run({"name": "alice"}, {"name": "bob"})
    alice, bob = estate.client("alice"), estate.client("bob")
    made = machines(bob, {**MACHINE, "name": "bobs", "pool": "bob", "state": "present", "power": "started"})
    assert not made["failed"], made
    return alice, bob, made["results"][0]["vmid"]


def test_a_tenant_manages_its_own_machines(estate: Estate) -> None:
    estate.run({"name": "alice"})
    alice = estate.client("alice")
    item = {**MACHINE, "name": "web", "pool": "alice", "state": "present", "power": "started"}
    result = machines(alice, item)
    assert (result["results"][0]["action"], result["failed"]) == ("create", False), result
    config = estate.simulator.client().get(f"/nodes/pve1/qemu/{result['results'][0]['vmid']}/config")
    assert {"scsi0", "net0", "sshkeys"} <= set(config)
    assert machines(alice, item)["changed"] is False
    changed = machines(alice, {**item, "cores": 2, "description": "more", "power": "stopped"})
    assert (changed["results"][0]["action"], changed["failed"]) == ("update", False), changed
    gone = machines(alice, {"name": "web", "state": "absent", "pool": "alice", "power": "started"})
    assert (gone["results"][0]["action"], gone["failed"]) == ("delete", False), gone


def test_a_tenant_sees_nothing_of_another(neighbours: tuple[Client, Client, int]) -> None:
    alice, bob, vmid = neighbours
    assert [row["vmid"] for row in bob.get("/cluster/resources") if row["type"] == "qemu"] == [vmid]
    for path in ("/cluster/resources", "/nodes/pve1/qemu", "/pools", "/nodes/pve1/tasks", "/cluster/tasks"):
        assert "bob" not in json.dumps(alice.get(path)), path
        assert str(vmid) not in {str(row.get("vmid")) for row in alice.get(path)}, path
    assert "bob" not in json.dumps(alice.get("/access/acl"))
    assert "bob" not in json.dumps(alice.get("/access/users"))
    assert "bob" not in json.dumps(alice.get("/access/permissions"))
    volumes = {row["volid"] for row in alice.get("/nodes/pve1/storage/local/content")}
    assert not [volid for volid in volumes if f"/vm-{vmid}-" in volid]


def attempts(vmid: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Every verb on somebody else's machine, its disk, pool, user and token."""
    vm = f"/nodes/pve1/qemu/{vmid}"
    reads = ["config", "pending", "status/current", "snapshot", "firewall/options", "agent/network-get-interfaces"]
    powers = ["start", "stop", "shutdown", "reset", "reboot", "suspend", "resume"]
    return [
        *(("GET", f"{vm}/{name}", {}) for name in reads),
        *(("POST", f"{vm}/status/{name}", {}) for name in powers),
        ("PUT", f"{vm}/config", {"cores": 4}),
        ("POST", f"{vm}/config", {"description": "mine"}),
        ("PUT", f"{vm}/resize", {"disk": "scsi0", "size": "+1G"}),
        ("POST", f"{vm}/clone", {"newid": 900, "pool": "alice"}),
        ("POST", f"{vm}/template", {}),
        ("POST", f"{vm}/snapshot", {"snapname": "x"}),
        ("POST", f"{vm}/migrate", {"target": "pve2"}),
        ("POST", f"{vm}/move_disk", {"disk": "scsi0", "storage": "local"}),
        ("PUT", f"{vm}/unlink", {"idlist": "scsi0"}),
        ("POST", f"{vm}/firewall/rules", {"type": "in", "action": "ACCEPT"}),
        ("DELETE", vm, {}),
        ("POST", "/nodes/pve1/qemu", {"vmid": 901}),
        ("POST", "/nodes/pve1/qemu", {"vmid": 901, "pool": "bob"}),
        ("POST", "/nodes/pve1/qemu", {"vmid": 901, "pool": "alice", "net0": "virtio,bridge=vmbr9"}),
        ("POST", "/nodes/pve1/qemu", {"vmid": 901, "pool": "alice", "scsi0": f"local:{vmid}/vm-{vmid}-disk-0.qcow2"}),
        ("DELETE", f"/nodes/pve1/storage/local/content/local:{vmid}%2Fvm-{vmid}-disk-0.qcow2", {}),
        ("DELETE", "/nodes/pve1/storage/local/content/local:import%2Fnixos.qcow2", {}),
        ("POST", "/cluster/ha/resources", {"sid": f"vm:{vmid}"}),
        ("GET", "/pools/bob", {}),
        ("PUT", "/pools", {"poolid": "alice", "vms": str(vmid), "allow-move": True}),
        ("PUT", "/pools", {"poolid": "bob", "comment": "mine"}),
        ("DELETE", "/pools/bob", {}),
        ("GET", "/access/users/bob@pve", {}),
        ("PUT", "/access/users/bob@pve", {"enable": False}),
        ("GET", "/access/users/bob@pve/token", {}),
        ("POST", "/access/users/bob@pve/token/another", {}),
        ("DELETE", "/access/users/bob@pve/token/fediversity", {}),
        ("PUT", "/access/acl", {"path": "/pool/bob", "users": "alice@pve", "roles": "FediversityVms"}),
        ("PUT", "/access/acl", {"path": "/", "tokens": "alice@pve!fediversity", "roles": "Administrator"}),
        ("PUT", "/access/roles/FediversityVms", {"privs": "VM.Console"}),
        ("POST", "/access/users", {"userid": "mallory@pve"}),
        ("POST", "/pools", {"poolid": "mine"}),
    ]


def test_a_tenant_touches_nothing_of_another(estate: Estate, neighbours: tuple[Client, Client, int]) -> None:
    alice, bob, vmid = neighbours
    path = f"/nodes/pve1/qemu/{vmid}"
    before = bob.get(f"{path}/config")
    through = []
    for method, target, params in attempts(vmid):
        try:
            through.append((method, target, params, alice.request(method, target, params)))
        except (Denied, NotFound):
            pass
        except HostingError as error:
            # another refusal would tell that there is something
            through.append((method, target, params, str(error)))
    assert through == []
    assert bob.get(f"{path}/config") == before
    assert bob.get(f"{path}/status/current")["status"] == "running"


def test_a_token_without_its_user_s_rights_has_none(estate: Estate) -> None:
    estate.run({"name": "alice"})
    admin = estate.simulator.client()
    admin.put("/access/acl", path="/pool/alice", users="alice@pve", roles="FediversityVms", delete=True)
    with pytest.raises(Denied):
        estate.client("alice").post("/nodes/pve1/qemu", vmid=100, pool="alice")


# stores


def test_the_operator_database_keeps_the_secret_encrypted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/operator.db"
    upgrade(open_database(url))
    tokens = DatabaseTokens(SecretStore(open_database(url), [Fernet.generate_key()]))
    assert tokens.get("alice") is None
    for secret in ("5ecre7-one", "5ecre7-two"):
        tokens.put("alice", "alice@pve", "fediversity", secret)
        assert tokens.get("alice") == secret
    assert tokens.place("alice") == {"secret_ref": "alice/proxmox-token"}
    assert b"5ecre7" not in (tmp_path / "operator.db").read_bytes()
    tokens.forget("alice")
    tokens.forget("alice")
    assert tokens.get("alice") is None


def test_the_vault_file_is_whole_encrypted_and_private(tmp_path: Path) -> None:
    secrets = [("default", VaultSecret(b"vault password"))]
    tokens = VaultTokens(tmp_path / "tokens", secrets)
    assert tokens.get("alice") is None
    # in Ansible texts are of a class of its own
    tokens.put("alice", *map(type("Tagged", (str,), {}), ("alice@pve", "fediversity", "5ecre7")))
    path = tmp_path / "tokens" / "alice.yml"
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert path.read_bytes().startswith(b"$ANSIBLE_VAULT;")
    assert "api_token_id: fediversity" in VaultLib(secrets).decrypt(path.read_bytes()).decode()
    assert [entry.name for entry in path.parent.iterdir()] == ["alice.yml"]
    assert tokens.get("alice") == "5ecre7"
    with pytest.raises(Denied, match="cannot be decrypted") as caught:
        VaultTokens(tmp_path / "tokens", [("default", VaultSecret(b"another"))]).get("alice")
    assert "5ecre7" not in str(caught.value)
    tokens.forget("alice")
    tokens.forget("alice")
    assert not path.exists()
    with pytest.raises(InvalidInput, match="no vault secret"):
        VaultTokens(tmp_path, [])


# as Ansible runs it

Play = Callable[..., tuple[int, str]]


@pytest.fixture
def play(simulator: Simulator, tmp_path: Path) -> Play:
    (tmp_path / "ansible.cfg").write_text("[defaults]\n", encoding="utf-8")
    (tmp_path / "vault").write_text("vault password\n", encoding="utf-8")
    (tmp_path / "key").write_bytes(Fernet.generate_key())

    def run(arguments: dict[str, Any], *options: str, **variables: str) -> tuple[int, str]:
        task = {"fediversity.hosting.proxmox_tenants": arguments}
        plays = [{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]
        (tmp_path / "play.yml").write_text(json.dumps(plays), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-vvv", "--diff", "play.yml", *options],
            cwd=tmp_path,
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
                "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
                "ANSIBLE_LOCAL_TEMP": str(tmp_path),
                "ANSIBLE_LOG_PATH": str(tmp_path / "ansible.log"),
                "ANSIBLE_NOCOLOR": "1",
                "PROXMOX_HOST": "127.0.0.1",
                "PROXMOX_PORT": str(simulator.port),
                "PROXMOX_USER": "fediversity@pve",
                "PROXMOX_TOKEN_ID": "lab",
                "PROXMOX_TOKEN_SECRET": simulator.secrets["fediversity@pve!lab"],
                "PROXMOX_CA_PATH": str(simulator.authority),
                **variables,
            },
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_play_stores_in_files_under_vault(play: Play, tmp_path: Path) -> None:
    arguments = {"tenants": [{"name": "alice", "storages": ["local"]}], "token_directory": "tokens"}
    code, output = play(arguments)
    assert code != 0
    assert "no vault secret is given" in output
    options = ("--vault-password-file", "vault")
    code, output = play(arguments, *options)
    assert code == 0, output
    assert "changed=1" in output
    secret = VaultTokens(tmp_path / "tokens", [("default", VaultSecret(b"vault password"))]).get("alice")
    assert secret
    assert secret not in output
    assert secret not in (tmp_path / "ansible.log").read_text(encoding="utf-8")
    code, output = play(arguments, *options)
    assert (code, "changed=0" in output) == (0, True), output
    code, output = play({**arguments, "vault_password_file": str(tmp_path / "vault")}, "--check")
    assert (code, "changed=0" in output) == (0, True), output


def test_the_play_stores_in_the_operator_database(play: Play, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/operator.db"
    upgrade(open_database(url))
    arguments = {
        "tenants": [{"name": "alice", "storages": ["local"]}],
        "database_url": url,
        "secret_key_file": str(tmp_path / "key"),
    }
    code, output = play(arguments)
    assert code == 0, output
    tokens = DatabaseTokens(SecretStore(open_database(url), [(tmp_path / "key").read_bytes()]))
    secret = tokens.get("alice")
    assert secret
    assert secret not in output
    code, output = play(arguments, PROXMOX_TOKEN_SECRET="", PROXMOX_TOKEN_ID="")
    assert code != 0
    assert "no credentials are given" in output
