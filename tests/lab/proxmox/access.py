# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/access: login, users, tokens, roles, ACLs (PVE/API2/AccessControl.pm, User.pm, Role.pm, ACL.pm)."""

from __future__ import annotations

import re
import secrets
import uuid
from typing import Any

from .errors import ApiError, denied, invalid
from .formats import CHECKS, split_list
from .permissions import ROOT, Identity, privileges, role_privileges
from .privileges import BUILT_IN_ROLES
from .routes import Call, endpoint
from .store import Cluster

REALMS = [
    {"realm": "pam", "type": "pam", "comment": "Linux PAM standard authentication"},
    {"realm": "pve", "type": "pve", "comment": "Proxmox VE authentication server"},
]
ACL_PATH = re.compile(
    r"/|/access(/groups(/[^/]+)?|/realm(/[^/]+)?)?|/(nodes|pool|storage|vms|mapping)(/[^/]+)*|/sdn(/[^/]+)*"
)
CAPABILITIES = {
    "vms": ("VM.",),
    "storage": ("Datastore.",),
    "nodes": ("Sys.",),
    "sdn": ("SDN.",),
    "mapping": ("Mapping.",),
    "access": ("User.Modify", "Group.Allocate"),
    "dc": ("Sys.Audit", "Sys.Modify", "SDN."),
}


def new_user(**fields: Any) -> dict[str, Any]:
    return {"enable": 1, "expire": 0, "password": "", "tokens": {}} | fields


def capabilities(cluster: Cluster, who: Identity) -> dict[str, dict[str, int]]:
    """`cap` of a login: what the web interface may show."""
    held = privileges(cluster, who, "/")
    found = {}
    for part, prefixes in CAPABILITIES.items():
        found[part] = {name: 1 for name in held if name.startswith(prefixes)}
        if part != "dc" and "Permissions.Modify" in held:
            found[part]["Permissions.Modify"] = 1
    return found


@endpoint("GET", "/access/domains")
async def domains(call: Call) -> object:
    return REALMS


@endpoint("POST", "/access/ticket")
async def login(call: Call) -> object:
    """A ticket for a password, or for an older ticket given as password."""
    name, password, cluster = call.params["username"], call.params["password"], call.cluster
    name = name if "@" in name else f"{name}@{call.params.get('realm', 'pam')}"
    user = cluster.users.get(name)
    renewal = cluster.tickets.get(password) == name
    stored = str(user["password"]) if user and user["enable"] else ""
    good = bool(stored) and secrets.compare_digest(stored.encode(), password.encode())
    if not stored or not (good or renewal):
        raise ApiError("authentication failure", status=401)
    ticket = f"PVE:{name}:{secrets.token_hex(4).upper()}::{secrets.token_urlsafe(48)}"
    cluster.tickets[ticket] = name
    who = Identity(name)
    return {
        "username": name,
        "ticket": ticket,
        "CSRFPreventionToken": csrf_of(ticket),
        "clustername": cluster.world.name,
        "cap": capabilities(cluster, who),
    }


def csrf_of(ticket: str) -> str:
    """The header value that belongs to a ticket."""
    return f"{uuid.uuid5(uuid.NAMESPACE_OID, ticket).hex[:8].upper()}:{uuid.uuid5(uuid.NAMESPACE_URL, ticket).hex}"


def _user(call: Call) -> dict[str, Any]:
    name = call.params["userid"]
    if name not in call.cluster.users:
        raise ApiError(f"no such user ('{name}')")
    return call.cluster.users[name]


def _manager(call: Call, *more: str) -> None:
    call.require("/access/groups", "User.Modify", *more)


def _self_or_manager(call: Call) -> None:
    if call.who.user != call.params["userid"]:
        _manager(call)


@endpoint("GET", "/access/users")
async def list_users(call: Call) -> object:
    rows = []
    for name, user in sorted(call.cluster.users.items()):
        if call.may("/access/groups", "User.Modify", "Sys.Audit") or call.who.full == name:
            row = {key: user[key] for key in ("enable", "expire", "comment", "email") if user.get(key, "") != ""}
            rows.append({"userid": name, "realm-type": name.split("@")[1]} | row)
    return rows


@endpoint("POST", "/access/users")
async def create_user(call: Call) -> object:
    name = call.params["userid"]
    if problem := CHECKS["userid"](name):
        raise ApiError(problem.rstrip("\n"))
    if not call.may(f"/access/realm/{name.split('@')[1]}", "Realm.AllocateUser"):
        raise denied(f"/access/realm/{name.split('@')[1]}, Realm.AllocateUser")
    _manager(call)
    if name in call.cluster.users:
        raise ApiError(f"create user failed: user '{name}' already exists")
    fields = {key: value for key, value in call.params.items() if key != "userid"}
    call.cluster.users[name] = new_user(**fields)
    call.cluster.save()
    return None


@endpoint("GET", "/access/users/{userid}")
async def get_user(call: Call) -> object:
    _manager(call, "Sys.Audit")
    user = _user(call)
    tokens = {name: _token_info(token) for name, token in user["tokens"].items()} or None
    row = {key: user[key] for key in ("enable", "expire", "comment") if user.get(key) is not None}
    return row | {"email": user.get("email", ""), "groups": [], "tokens": tokens}


@endpoint("PUT", "/access/users/{userid}")
async def update_user(call: Call) -> object:
    _manager(call)
    _user(call).update({key: value for key, value in call.params.items() if key not in ("userid", "append")})
    call.cluster.save()
    return None


@endpoint("DELETE", "/access/users/{userid}")
async def delete_user(call: Call) -> object:
    _manager(call)
    _user(call)
    name, cluster = call.params["userid"], call.cluster
    del cluster.users[name]
    cluster.acl = [row for row in cluster.acl if row["ugid"].split("!")[0] != name]
    cluster.save()
    return None


def _token_info(token: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in token.items() if key != "secret" and value is not None}


def _token(call: Call) -> dict[str, Any]:
    tokens, name = _user(call)["tokens"], call.params["tokenid"]
    if name not in tokens:
        raise ApiError(f"no such token '{name}' for user '{call.params['userid']}'")
    token: dict[str, Any] = tokens[name]
    return token


@endpoint("GET", "/access/users/{userid}/token")
async def list_tokens(call: Call) -> object:
    _self_or_manager(call)
    return [{"tokenid": name} | _token_info(token) for name, token in _user(call)["tokens"].items()]


@endpoint("GET", "/access/users/{userid}/token/{tokenid}")
async def get_token(call: Call) -> object:
    _self_or_manager(call)
    return _token_info(_token(call))


@endpoint("POST", "/access/users/{userid}/token/{tokenid}")
async def create_token(call: Call) -> object:
    """The secret is told once."""
    _self_or_manager(call)
    user, params = _user(call), call.params
    if params["tokenid"] in user["tokens"]:
        raise invalid({"tokenid": "Token already exists."})
    secret = str(uuid.uuid4())
    sent = {key: params[key] for key in ("comment", "expire") if key in params}
    info = {"privsep": params.get("privsep", 1)} | sent
    user["tokens"][params["tokenid"]] = {"expire": 0} | info | {"secret": secret}
    call.cluster.save()
    return {"full-tokenid": f"{params['userid']}!{params['tokenid']}", "info": info, "value": secret}


@endpoint("PUT", "/access/users/{userid}/token/{tokenid}")
async def update_token(call: Call) -> object:
    _self_or_manager(call)
    token = _token(call)
    sent = {key: call.params[key] for key in ("comment", "expire", "privsep") if key in call.params}
    token.update(sent)
    for key in split_list(call.params.get("delete", "")):
        token.pop(key, None)
    call.cluster.save()
    # The values just sent come back as text, as they were parsed from the form.
    return _token_info(token) | {key: str(value) for key, value in sent.items()}


@endpoint("DELETE", "/access/users/{userid}/token/{tokenid}")
async def delete_token(call: Call) -> object:
    _self_or_manager(call)
    _token(call)
    user, name = call.params["userid"], call.params["tokenid"]
    del _user(call)["tokens"][name]
    call.cluster.acl = [row for row in call.cluster.acl if row["ugid"] != f"{user}!{name}"]
    call.cluster.save()
    return None


@endpoint("GET", "/access/roles")
async def list_roles(call: Call) -> object:
    names = {**dict.fromkeys(BUILT_IN_ROLES, 1), **dict.fromkeys(call.cluster.roles, 0)}
    return [
        {"roleid": name, "privs": ",".join(sorted(role_privileges(call.cluster, name))), "special": special}
        for name, special in names.items()
    ]


def _known_role(call: Call, prefix: str = "") -> str:
    name = call.params["roleid"]
    if name not in BUILT_IN_ROLES and name not in call.cluster.roles:
        raise ApiError(f"{prefix}role '{name}' does not exist")
    return str(name)


@endpoint("GET", "/access/roles/{roleid}")
async def get_role(call: Call) -> object:
    return dict.fromkeys(sorted(role_privileges(call.cluster, _known_role(call))), 1)


@endpoint("POST", "/access/roles")
async def create_role(call: Call) -> object:
    name = call.params["roleid"]
    if name in BUILT_IN_ROLES or name in call.cluster.roles:
        raise ApiError(f"create role failed: role '{name}' already exists")
    call.cluster.roles[name] = sorted(set(split_list(call.params.get("privs", ""))))
    call.cluster.save()
    return None


@endpoint("PUT", "/access/roles/{roleid}")
async def update_role(call: Call) -> object:
    name = call.params["roleid"]
    if name in BUILT_IN_ROLES:
        raise ApiError(f"auto-generated role '{name}' cannot be modified")
    _known_role(call)
    sent = set(split_list(call.params.get("privs", "")))
    call.cluster.roles[name] = sorted(sent | set(call.cluster.roles[name] if call.params.get("append") else ()))
    call.cluster.save()
    return None


@endpoint("DELETE", "/access/roles/{roleid}")
async def delete_role(call: Call) -> object:
    name, cluster = call.params["roleid"], call.cluster
    if name in BUILT_IN_ROLES:
        raise ApiError(f"auto-generated role '{name}' cannot be deleted")
    _known_role(call, "delete role failed: ")
    del cluster.roles[name]
    cluster.acl = [row for row in cluster.acl if row["roleid"] != name]
    cluster.save()
    return None


@endpoint("GET", "/access/acl")
async def get_acl(call: Call) -> object:
    return [row for row in call.cluster.acl if call.may(row["path"], "Permissions.Modify", "Sys.Audit")]


@endpoint("PUT", "/access/acl")
async def update_acl(call: Call) -> object:
    params, cluster = call.params, call.cluster
    if not ACL_PATH.fullmatch(params["path"]):
        raise invalid({"path": f"invalid ACL path '{params['path']}'"})
    call.require(params["path"], "Permissions.Modify")
    subjects = [("user", name) for name in split_list(params.get("users", ""))]
    subjects += [("token", name) for name in split_list(params.get("tokens", ""))]
    for role in split_list(params["roles"]):
        if role not in BUILT_IN_ROLES and role not in cluster.roles:
            raise ApiError(f"ACL update failed: role '{role}' does not exist")
        for kind, name in subjects:
            user, _unused, token = name.partition("!")
            if user not in cluster.users:
                raise ApiError(f"ACL update failed: user '{user}' does not exist")
            if token and token not in cluster.users[user]["tokens"]:
                raise ApiError(f"ACL update failed: no such token '{token}' for user '{user}'")
            row = {"path": params["path"], "type": kind, "ugid": name, "roleid": role}
            same = [old for old in cluster.acl if all(old[key] == value for key, value in row.items())]
            cluster.acl = [old for old in cluster.acl if old not in same]
            if not params.get("delete"):
                cluster.acl.append(row | {"propagate": params.get("propagate", 1)})
    cluster.save()
    return None


@endpoint("GET", "/access/permissions")
async def get_permissions(call: Call) -> object:
    """Effective privileges by path, of the caller or (Sys.Audit on /access) of `userid`."""
    cluster, who = call.cluster, call.who
    if (name := call.params.get("userid")) and name != who.full:
        call.require("/access", "Sys.Audit")
        who = identity(cluster, name)
    if path := call.params.get("path"):
        return {path: privileges(cluster, who, path)}
    paths = {"/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms"}
    paths = {path for path in paths if who.user == ROOT}
    paths |= {row["path"] for row in cluster.acl}
    paths |= {f"/vms/{vmid}" for pool in cluster.pools.values() for vmid in pool["vms"]}
    found = {path: privileges(cluster, who, path) for path in sorted(paths)}
    return {path: held for path, held in found.items() if held}


def identity(cluster: Cluster, full: str) -> Identity:
    """The user or token of that name."""
    user, _unused, token = full.partition("!")
    found = cluster.users.get(user, {}).get("tokens", {}).get(token, {})
    return Identity(user, token, bool(token) and bool(found.get("privsep", 1)))
