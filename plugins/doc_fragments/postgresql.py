# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - Name or address of the PostgreSQL server, or the directory of its Unix-domain socket.
      - If it is not set, the environment variable E(PGHOST) is used.
    type: str
    default: localhost
  login_port:
    description:
      - Port of the server.
      - If it is not set, the environment variable E(PGPORT) is used.
    type: int
    default: 5432
  login_user:
    description:
      - Role to log in as, a superuser or a role with C(CREATEDB) and C(CREATEROLE). Only superusers can read stored
        passwords to compare them; see O(password_check) for others.
      - If it is not set, the environment variable E(PGUSER) is used, and then the name of the system user.
    type: str
  login_password:
    description:
      - Password of O(login_user).
      - If it is not set, the environment variable E(PGPASSWORD) is used.
    type: str
  login_db:
    description:
      - Maintenance database to connect to.
      - Runs exclude each other by a lock in this database, so it should be the same for all of them, and no tenant
        should be able to connect to it. The module warns while every role of the server can.
    type: str
    default: postgres
  ssl_mode:
    description:
      - Whether and how the connection is encrypted, as C(sslmode) of libpq.
      - The certificate authority for V(verify-ca) and V(verify-full) is read from the file that E(PGSSLROOTCERT) names.
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
    default: prefer
requirements:
  - psycopg >= 3.1 (Python library)
  - PostgreSQL >= 13 (server)
"""
