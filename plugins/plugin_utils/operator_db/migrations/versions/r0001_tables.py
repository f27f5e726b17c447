# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first tables."""

from __future__ import annotations

import uuid

try:
    import sqlalchemy as sa
    from alembic import op
except ImportError:
    pass  # libraries.require() reports it before any use


revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _json() -> sa.JSON:
    return sa.JSON(none_as_null=True)


def _record() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("state", sa.String(32), nullable=False, server_default="new"),
        sa.Column("message", sa.Text, nullable=False, server_default=""),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
    )


def upgrade() -> None:
    info = op.create_table(
        "database_info",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("uuid", sa.String(36), nullable=False),
        sa.CheckConstraint("id = 1", name="single"),
    )
    op.bulk_insert(info, [{"id": 1, "uuid": str(uuid.uuid4())}])
    op.create_table(
        "environments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(32), nullable=False, unique=True),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("zones", _json(), nullable=False),
        sa.Column("network", _json(), nullable=False),
        sa.Column("proxmox", _json()),
        sa.Column("postgresql", _json()),
        sa.Column("garage", _json()),
    )
    op.create_table(
        "machines",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(63), nullable=False, unique=True),
        sa.Column("environment_id", sa.Integer, sa.ForeignKey("environments.id"), nullable=False),
        sa.Column("runtime", sa.String(16), nullable=False),
        sa.Column("address", sa.String(45)),
        sa.Column("ssh_port", sa.Integer, nullable=False),
        sa.Column("cores", sa.Integer),
        sa.Column("memory", sa.Integer),
        sa.Column("disk", sa.Integer),
        sa.Column("vmid", sa.Integer),
        sa.Column("node", sa.String(63)),
        sa.Column("system", sa.Text),
        sa.Column("generation", sa.Integer),
        *_record(),
        sa.UniqueConstraint("environment_id", "address"),
    )
    op.create_table(
        "operators",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(32), nullable=False, unique=True),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("contact", sa.Text, nullable=False),
    )
    op.create_table(
        "deployments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("operator_id", sa.Integer, sa.ForeignKey("operators.id"), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("environment_id", sa.Integer, sa.ForeignKey("environments.id"), nullable=False),
        sa.Column("wanted", sa.String(16), nullable=False),
        sa.Column("module_version", sa.String(64), nullable=False),
        *_record(),
        sa.UniqueConstraint("operator_id", "name"),
    )
    op.create_table(
        "application_instances",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("deployment_id", sa.Integer, sa.ForeignKey("deployments.id"), nullable=False),
        sa.Column("application", sa.String(32), nullable=False),
        sa.Column("machine_id", sa.Integer, sa.ForeignKey("machines.id")),
        sa.Column("domain", sa.String(253), unique=True),
        sa.Column("settings", _json(), nullable=False),
        sa.Column("nixos_options", _json(), nullable=False),
        sa.UniqueConstraint("deployment_id", "application"),
        sa.UniqueConstraint("machine_id", "application"),
    )
    op.create_table(
        "resources",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("environment_id", sa.Integer, sa.ForeignKey("environments.id"), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("instance_id", sa.Integer, sa.ForeignKey("application_instances.id")),
        sa.Column("machine_id", sa.Integer, sa.ForeignKey("machines.id")),
        sa.Column("outputs", _json(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("environment_id", "kind", "name"),
    )
    op.create_table(
        "secrets",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("ciphertext", sa.Text, nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("owner", "name"),
    )
