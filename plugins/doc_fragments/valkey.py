# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # matches CONNECTION_ARGUMENTS in module_utils/valkey/client.py
    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - Name or address of the server.
      - If it is not set, the environment variable E(VALKEY_HOST) is used.
    type: str
    default: localhost
  login_port:
    description:
      - Port of the server.
      - If it is not set, the environment variable E(VALKEY_PORT) is used.
    type: int
    default: 6379
  login_socket:
    description:
      - Path of the server's Unix-domain socket. It comes before O(login_host) and O(login_port).
      - If it is not set, the environment variable E(VALKEY_SOCKET) is used.
    type: path
  login_user:
    description:
      - User to log in as. The default is the server's user C(default).
      - If it is not set, the environment variable E(VALKEY_USER) is used.
    type: str
  login_password:
    description:
      - Password of O(login_user).
      - If it is not set, the environment variable E(VALKEY_PASSWORD) is used.
    type: str
  tls:
    description:
      - Whether the connection is encrypted. Without it O(login_password) crosses the network in clear.
      - If it is not set, the environment variable E(VALKEY_TLS) is used.
    type: bool
    default: false
  validate_certs:
    description: Whether to check the server's certificate and its name, with O(tls=true).
    type: bool
    default: true
  ca_path:
    description:
      - File with the certificates of the authorities to trust, in PEM format. The default is the system's.
      - If it is not set, the environment variable E(VALKEY_CA_PATH) is used.
    type: path
  client_cert:
    description:
      - File with our certificate in PEM format, where the server asks for one.
      - If it is not set, the environment variable E(VALKEY_CLIENT_CERT) is used.
    type: path
  client_key:
    description:
      - File with the key of O(client_cert) in PEM format.
      - If it is not set, the environment variable E(VALKEY_CLIENT_KEY) is used.
    type: path
requirements:
  - redis >= 5.0.1 (Python library), which speaks to Valkey and Redis alike
  - Valkey >= 7.2 or Redis >= 6.2 (server)
"""
