# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Privileges and the roles that every server has (PVE/AccessControl.pm; rows of GET /access/roles)."""

from __future__ import annotations

_VM_CONFIG = frozenset(
    f"VM.Config.{part}" for part in ("CDROM", "CPU", "Cloudinit", "Disk", "HWType", "Memory", "Network", "Options")
)
_VM_USER = frozenset(
    {
        "VM.Audit",
        "VM.Backup",
        "VM.Config.CDROM",
        "VM.Config.Cloudinit",
        "VM.Console",
        "VM.GuestAgent.Audit",
        "VM.GuestAgent.FileRead",
        "VM.GuestAgent.FileSystemMgmt",
        "VM.GuestAgent.FileWrite",
        "VM.PowerMgmt",
    }
)
_VM_ADMIN = (
    _VM_USER
    | _VM_CONFIG
    | {
        "VM.Allocate",
        "VM.Clone",
        "VM.GuestAgent.Unrestricted",
        "VM.Migrate",
        "VM.Replicate",
        "VM.Snapshot",
        "VM.Snapshot.Rollback",
    }
)
_DATASTORE_USER = frozenset({"Datastore.AllocateSpace", "Datastore.Audit"})
_DATASTORE_ADMIN = _DATASTORE_USER | {"Datastore.Allocate", "Datastore.AllocateTemplate"}
_SYS_ADMIN = frozenset({"Sys.Audit", "Sys.Console", "Sys.Syslog"})
_USER_ADMIN = frozenset({"Group.Allocate", "Realm.AllocateUser", "User.Modify"})
_MAPPING_USER = frozenset({"Mapping.Audit", "Mapping.Use"})
_SDN_USER = frozenset({"SDN.Audit", "SDN.Use"})
_POOL_ADMIN = frozenset({"Pool.Allocate", "Pool.Audit"})
_ADMIN = (
    _VM_ADMIN | _DATASTORE_ADMIN | _SYS_ADMIN | _USER_ADMIN | _MAPPING_USER | _SDN_USER | _POOL_ADMIN | {"SDN.Allocate"}
)
PRIVILEGES = _ADMIN | {
    "Mapping.Modify",
    "Permissions.Modify",
    "Realm.Allocate",
    "Sys.AccessNetwork",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
}

BUILT_IN_ROLES: dict[str, frozenset[str]] = {
    "Administrator": PRIVILEGES,
    "NoAccess": frozenset(),
    "PVEAdmin": _ADMIN,
    "PVEAuditor": frozenset(name for name in PRIVILEGES if name.endswith(".Audit")),
    "PVEDatastoreAdmin": _DATASTORE_ADMIN,
    "PVEDatastoreUser": _DATASTORE_USER,
    "PVEMappingAdmin": _MAPPING_USER | {"Mapping.Modify"},
    "PVEMappingUser": _MAPPING_USER,
    "PVEPoolAdmin": _POOL_ADMIN,
    "PVEPoolUser": frozenset({"Pool.Audit"}),
    "PVESDNAdmin": _SDN_USER | {"SDN.Allocate"},
    "PVESDNUser": _SDN_USER,
    "PVESysAdmin": _SYS_ADMIN,
    "PVETemplateUser": frozenset({"VM.Audit", "VM.Clone"}),
    "PVEUserAdmin": _USER_ADMIN,
    "PVEVMAdmin": _VM_ADMIN,
    "PVEVMUser": _VM_USER,
}
