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
      - Names or addresses of one or more nodes of the Proxmox VE cluster, separated by commas, each with its own port
        if that is not O(api_port), for example V(pve1.example.org,pve2.example.org:443,[2001:db8::3]:8006). A URL is
        taken too.
      - Requests go to the first node that answers and stay there. A request that only reads is asked again at the next
        node when there is no answer; a request that writes goes to another node only if it surely was not sent at all.
      - If it is not set, the first of the environment variables E(PROXMOX_HOST), E(PROXMOX_URL) and
        E(PROXMOX_VE_ENDPOINT) is used.
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
      - If it is not set, the first of the environment variables E(PROXMOX_USER), E(PROXMOX_USERNAME) and
        E(PROXMOX_VE_USERNAME) is used.
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
      - If it is not set, the first of the environment variables E(PROXMOX_PASSWORD) and E(PROXMOX_VE_PASSWORD) is used.
    type: str
  validate_certs:
    description:
      - Whether the certificate of the API must be valid. With V(false) O(fingerprint) is still checked if it is given.
      - If it is not set, the environment variable E(PROXMOX_VALIDATE_CERTS) is used.
    type: bool
    default: true
  ca_path:
    description:
      - File or directory of the certificate authorities to trust instead of those of the system.
        The cluster's own authority is V(/etc/pve/pve-root-ca.pem) on its nodes.
      - Nothing of the environment has an influence on the connection, neither E(REQUESTS_CA_BUNDLE), E(CURL_CA_BUNDLE),
        E(HTTPS_PROXY) nor a C(.netrc) file. Proxies are not used.
      - If it is not set, the environment variable E(PROXMOX_CA_PATH) is used.
    type: path
  fingerprint:
    description:
      - SHA-256 of the certificates that the nodes may have, in hexadecimal digits with or without colons. It is checked
        for every connection before anything is sent.
      - It takes the place of O(ca_path) and the system's authorities, which do not know the certificate that Proxmox VE
        makes itself. If O(ca_path) is given, both must hold.
      - If it is not set, the environment variable E(PROXMOX_FINGERPRINT) is used, several being separated by commas.
    type: list
    elements: str
    default: []
  api_timeout:
    description:
      - Seconds to wait for the answer to one request.
      - At least 35, because the server itself waits up to 30 seconds for its other nodes.
      - If it is not set, the environment variable E(PROXMOX_TIMEOUT) is used.
    type: int
    default: 40
  task_timeout:
    description:
      - Seconds that one task of the server may take, for example the import of an image.
      - If it is not set, the environment variable E(PROXMOX_TASK_TIMEOUT) is used.
    type: int
    default: 600
  lock_timeout:
    description:
      - Seconds for which a request is tried again while another task, for example a backup, locks the virtual machine.
      - If it is not set, the environment variable E(PROXMOX_LOCK_TIMEOUT) is used.
    type: int
    default: 60
requirements:
  - proxmoxer >= 2.0.0
  - requests
notes:
  - The module speaks only to the API, so it usually runs on the controller, with C(delegate_to=localhost) or
    C(connection=local).
"""
