# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables of the operator database (SQLAlchemy Core); migrations/ brings a database to this shape."""

from __future__ import annotations

# the newest migration; a database at another revision is refused
REVISION = "0003"


def _identity() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _json(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, JSON(none_as_null=True), nullable=nullable)


def _record() -> tuple[Column[object], ...]:
    """What the last run left behind; written by runs only, never by an import."""
    return (
        Column("state", String(32), nullable=False, server_default="new"),
        Column("message", Text, nullable=False, server_default=""),
        Column("updated_at", DateTime(timezone=True)),
    )


try:
    from sqlalchemy import (
        JSON,
        CheckConstraint,
        Column,
        DateTime,
        ForeignKey,
        Integer,
        MetaData,
        String,
        Table,
        Text,
        UniqueConstraint,
    )
except ImportError:
    pass  # libraries.require() reports it before any use
else:
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )

    database_info = Table(
        "database_info",
        metadata,
        _identity(),
        Column("uuid", String(36), nullable=False),
        CheckConstraint("id = 1", name="single"),
    )

    environments = Table(
        "environments",
        metadata,
        _identity(),
        Column("name", String(32), nullable=False, unique=True),
        Column("stage", String(16), nullable=False),
        _json("zones"),
        _json("network"),
        _json("proxmox", nullable=True),
        _json("postgresql", nullable=True),
        _json("garage", nullable=True),
    )

    machines = Table(
        "machines",
        metadata,
        _identity(),
        Column("name", String(63), nullable=False, unique=True),
        Column("environment_id", Integer, ForeignKey("environments.id"), nullable=False),
        Column("runtime", String(16), nullable=False),
        # empty only within the transaction of an import that exchanges addresses
        Column("address", String(45)),
        Column("ssh_port", Integer, nullable=False),
        Column("cores", Integer),
        Column("memory", Integer),
        Column("disk", Integer),
        Column("vmid", Integer),
        Column("node", String(63)),
        Column("incarnation", String(64)),
        Column("system", Text),
        Column("generation", Integer),
        *_record(),
        UniqueConstraint("environment_id", "address"),
    )

    # The newest commit of each system; a rejected one was rolled back by hand and is not deployed again by itself.
    machine_systems = Table(
        "machine_systems",
        metadata,
        _identity(),
        Column("machine_id", Integer, ForeignKey("machines.id"), nullable=False),
        Column("system", Text, nullable=False),
        Column("generation", Integer),
        Column("committed_at", DateTime(timezone=True)),
        Column("rejected_at", DateTime(timezone=True)),
        Column("rejected_by", Text, nullable=False, server_default=""),
        Column("rejected_why", Text, nullable=False, server_default=""),
        UniqueConstraint("machine_id", "system"),
    )

    operators = Table(
        "operators",
        metadata,
        _identity(),
        Column("name", String(32), nullable=False, unique=True),
        Column("display_name", Text, nullable=False),
        Column("contact", Text, nullable=False),
    )

    deployments = Table(
        "deployments",
        metadata,
        _identity(),
        Column("operator_id", Integer, ForeignKey("operators.id"), nullable=False),
        Column("name", String(32), nullable=False),
        Column("environment_id", Integer, ForeignKey("environments.id"), nullable=False),
        Column("wanted", String(16), nullable=False),
        Column("module_version", String(64), nullable=False),
        *_record(),
        UniqueConstraint("operator_id", "name"),
    )

    application_instances = Table(
        "application_instances",
        metadata,
        _identity(),
        Column("deployment_id", Integer, ForeignKey("deployments.id"), nullable=False),
        Column("application", String(32), nullable=False),
        # both empty only within the transaction of an import that exchanges them between instances
        Column("machine_id", Integer, ForeignKey("machines.id")),
        Column("domain", String(253), unique=True),
        _json("settings"),
        _json("nixos_options"),
        UniqueConstraint("deployment_id", "application"),
        UniqueConstraint("machine_id", "application"),
    )

    resources = Table(
        "resources",
        metadata,
        _identity(),
        Column("environment_id", Integer, ForeignKey("environments.id"), nullable=False),
        Column("kind", String(32), nullable=False),
        Column("name", Text, nullable=False),
        Column("instance_id", Integer, ForeignKey("application_instances.id")),
        Column("machine_id", Integer, ForeignKey("machines.id")),
        _json("outputs"),
        Column("updated_at", DateTime(timezone=True), nullable=False),
        UniqueConstraint("environment_id", "kind", "name"),
    )

    # No foreign key to the instances: a secret outlives its instance as long as a backup of it may be restored.
    secrets = Table(
        "secrets",
        metadata,
        _identity(),
        Column("owner", String(128), nullable=False),
        Column("name", String(64), nullable=False),
        Column("kind", String(32), nullable=False),
        Column("ciphertext", Text, nullable=False),
        Column("key_id", String(16), nullable=False),
        Column("revision", Integer, nullable=False, server_default="1"),
        Column("created_at", DateTime(timezone=True), nullable=False),
        UniqueConstraint("owner", "name"),
    )
