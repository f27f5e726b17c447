# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  server:
    description:
      - Name or address of a primary server of the zones.
      - If it is not set, the environment variable E(DNS_SERVER) is used.
    type: str
  port:
    description:
      - Port of the server; TCP is used for everything.
      - If it is not set, the environment variable E(DNS_PORT) is used.
    type: int
    default: 53
  tsig_name:
    description:
      - Name of the TSIG key that signs transfers and updates.
      - If it is not set, the environment variable E(DNS_TSIG_NAME) is used.
    type: str
  tsig_secret:
    description:
      - Secret of the TSIG key, in base64.
      - If it is not set, the environment variable E(DNS_TSIG_SECRET) is used.
    type: str
  tsig_algorithm:
    description:
      - Algorithm of the TSIG key.
      - If it is not set, the environment variable E(DNS_TSIG_ALGORITHM) is used.
    type: str
    choices: [hmac-sha256, hmac-sha384, hmac-sha512]
    default: hmac-sha256
requirements:
  - dnspython >= 2.6 (Python library), with its idna extra for names beyond ASCII
"""
