# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # matches GARAGE_ARGUMENTS in module_utils/garage/client.py
    DOCUMENTATION = r"""
options:
  admin_url:
    description:
      - Scheme, host and port of Garage's admin API, such as C(http://127.0.0.1:3903).
      - Send all changes to the same node of a cluster; Garage's locks hold on one node only.
      - If not set, the environment variable E(GARAGE_ADMIN_URL) is used.
    type: str
    required: true
  admin_token:
    description:
      - Token of the admin API. It needs the scope that the notes of the module list, or V(*).
      - If not set, the environment variable E(GARAGE_ADMIN_TOKEN) is used.
    type: str
    required: true
  validate_certs:
    description: Whether to check the server's certificate when O(admin_url) is an HTTPS URL.
    type: bool
    default: true
  ca_path:
    description: File with the certificates of the authorities to trust, in PEM format. The default is the system's.
    type: path
  timeout:
    description: Seconds to wait for an answer.
    type: int
    default: 30
"""
