# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alembic's environment: runs the migrations on the connection, and in the transaction, that database.py hands over."""

from __future__ import annotations

from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db import schema

try:
    from alembic import context
except ImportError:
    pass  # nothing but Alembic runs this file
else:
    context.configure(connection=context.config.attributes["connection"], target_metadata=schema.metadata)
    context.run_migrations()
