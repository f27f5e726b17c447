# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The systems that each machine has committed, and those that somebody rolled back by hand."""

from __future__ import annotations

from datetime import UTC, datetime

try:
    import sqlalchemy as sa
    from alembic import op
except ImportError:
    pass  # libraries.require() reports it before any use


revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "machine_systems",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("machine_id", sa.Integer, sa.ForeignKey("machines.id"), nullable=False),
        sa.Column("system", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer),
        sa.Column("committed_at", sa.DateTime(timezone=True)),
        sa.Column("rejected_at", sa.DateTime(timezone=True)),
        sa.Column("rejected_by", sa.Text, nullable=False, server_default=""),
        sa.Column("rejected_why", sa.Text, nullable=False, server_default=""),
        sa.UniqueConstraint("machine_id", "system"),
    )
    machines = sa.table("machines", *map(sa.column, ("id", "system", "generation")))
    systems = sa.table(
        "machine_systems",
        *map(sa.column, ("machine_id", "system", "generation")),
        sa.column("committed_at", sa.DateTime(timezone=True)),
    )
    # a system without a generation was there before this collection, nobody committed it
    known = sa.select(machines.c.id, machines.c.system, machines.c.generation).where(
        machines.c.system.is_not(None), machines.c.generation.is_not(None)
    )
    now = datetime.now(UTC)
    for row in op.get_bind().execute(known).all():
        values = {"machine_id": row.id, "system": row.system, "generation": row.generation, "committed_at": now}
        op.execute(sa.insert(systems).values(**values))
