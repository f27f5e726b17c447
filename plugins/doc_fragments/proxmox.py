# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # matches CONNECTION_ARGUMENTS in module_utils/proxmox/connection.py
    DOCUMENTATION = r"""
options:
  api_host:
    description:
      - Name or address of a node of the Proxmox VE cluster.
      - If it is not set, the environment variable E(PROXMOX_HOST) is used.
    type: str
    required: true
  api_port:
    description:
      - Port of the API.
      - If it is not set, the environment variable E(PROXMOX_PORT) is used.
    type: int
    default: 8006
  api_user:
    description:
      - User with realm, for example V(fediversity@pve).
      - If it is not set, the environment variable E(PROXMOX_USER) is used.
    type: str
    required: true
  api_token_id:
    description:
      - Name of an API token of O(api_user), only the part after the V(!).
      - If it is not set, the environment variable E(PROXMOX_TOKEN_ID) is used.
    type: str
  api_token_secret:
    description:
      - Secret of the API token. A token is preferred to a password.
      - If it is not set, the environment variable E(PROXMOX_TOKEN_SECRET) is used.
    type: str
  api_password:
    description:
      - Password of O(api_user), used when there is no token.
      - If it is not set, the environment variable E(PROXMOX_PASSWORD) is used.
    type: str
  validate_certs:
    description:
      - Whether the certificate of the API must be valid.
      - If it is not set, the environment variable E(PROXMOX_VALIDATE_CERTS) is used.
    type: bool
    default: true
  ca_path:
    description:
      - File or directory of the certificate authorities to trust instead of those of the system.
        The cluster's own authority is V(/etc/pve/pve-root-ca.pem) on its nodes.
      - The environment variables E(REQUESTS_CA_BUNDLE) and E(CURL_CA_BUNDLE) have no influence.
      - If it is not set, the environment variable E(PROXMOX_CA_PATH) is used.
    type: path
  api_timeout:
    description:
      - Seconds to wait for the answer to one request.
      - At least 35, because the server itself waits up to 30 seconds for its other nodes.
    type: int
    default: 40
  task_timeout:
    description:
      - Seconds that one task of the server may take, for example the import of an image.
    type: int
    default: 600
requirements:
  - proxmoxer >= 2.0.0
  - requests
notes:
  - The module speaks only to the API, so it usually runs on the controller, with C(delegate_to=localhost) or
    C(connection=local).
"""
