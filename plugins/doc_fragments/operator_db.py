# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # for modules; matches DATABASE_ARGUMENTS in plugin_utils/action.py
    DATABASE = r"""
options:
  database_url:
    description:
      - Where the operator database is, V(sqlite:////absolute/path/operator.db) or
        V(postgresql://user:password@host/database).
      - Falls back to the environment variable E(FEDIVERSITY_DATABASE_URL).
    type: str
"""

    # for modules; matches SECRET_KEY_ARGUMENTS in plugin_utils/action.py
    SECRET_KEY = r"""
options:
  secret_key:
    description:
      - The keys that the secrets in the operator database are encrypted with, separated by commas or white space. The
        first one encrypts, all of them decrypt. Each is 32 random bytes in URL-safe base64 (a Fernet key).
      - Falls back to the environment variable E(FEDIVERSITY_SECRET_KEY).
    type: str
  secret_key_file:
    description:
      - A file with these keys, one per line; lines that begin with C(#) are comments. Not read if O(secret_key) is set.
      - Falls back to the environment variable E(FEDIVERSITY_SECRET_KEY_FILE).
    type: path
"""

    # for plugins
    PLUGIN_DATABASE = r"""
options:
  database_url:
    description:
      - Where the operator database is, V(sqlite:////absolute/path/operator.db) or
        V(postgresql://user:password@host/database).
    type: str
    env:
      - name: FEDIVERSITY_DATABASE_URL
"""

    # for plugins
    PLUGIN_SECRET_KEY = r"""
options:
  secret_key:
    description:
      - The keys that the secrets in the operator database are encrypted with, separated by commas or white space. The
        first one encrypts, all of them decrypt. Each is 32 random bytes in URL-safe base64 (a Fernet key).
    type: str
    env:
      - name: FEDIVERSITY_SECRET_KEY
  secret_key_file:
    description:
      - A file with these keys, one per line; lines that begin with C(#) are comments. Not read if O(secret_key) is set.
    type: path
    env:
      - name: FEDIVERSITY_SECRET_KEY_FILE
"""
