# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which virtual machine it was that committed the recorded system."""

from __future__ import annotations

try:
    import sqlalchemy as sa
    from alembic import op
except ImportError:
    pass  # libraries.require() reports it before any use


revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("machines", sa.Column("incarnation", sa.String(64)))
