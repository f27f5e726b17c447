# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: operator_secrets
short_description: Create the secrets that are missing in the operator database
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Generates every secret that does not exist yet and stores it encrypted in the operator database. Existing secrets
    never change, and of two parallel runs one finds what the other has made.
  - Values are never returned; the lookup P(fediversity.hosting.secret#lookup) fetches them by reference.
  - Runs once in the controller process, whatever the number of hosts.
requirements: [SQLAlchemy, cryptography, psycopg (for PostgreSQL)]
options:
  secrets:
    description: The secrets that have to exist.
    type: list
    elements: dict
    default: []
    suboptions:
      ref:
        description: The reference, C(<instance id>/<secret name>).
        type: str
        required: true
      kind:
        description:
          - V(hex), V(base64) and V(base64url) are O(secrets[].bytes) random bytes in that form, V(alphanumeric) are as
            many letters and digits.
          - V(vapid-private) and V(vapid-public) are a key pair for Web Push.
        type: str
        required: true
      bytes:
        description: Length of the kinds that have no fixed one, 8 to 4096.
        type: int
      source:
        description: For V(vapid-public), the reference of the private key that it belongs to.
        type: str
  rewrap:
    description:
      - Encrypt again, with the first key, every secret that was encrypted with another key. The last step before an old
        key is removed from O(secret_key_file).
    type: bool
    default: false
seealso:
  - plugin: fediversity.hosting.secret
    plugin_type: lookup
extends_documentation_fragment:
  - fediversity.hosting.operator_db.database
  - fediversity.hosting.operator_db.secret_key
  - fediversity.hosting.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: There is nothing to show but secrets.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Create a password and a key pair
  fediversity.hosting.operator_secrets:
    secrets:
      - ref: alice_social_mastodon/database-password
        kind: alphanumeric
        bytes: 40
      - ref: alice_social_mastodon/vapid-private-key
        kind: vapid-private
      - ref: alice_social_mastodon/vapid-public-key
        kind: vapid-public
        source: alice_social_mastodon/vapid-private-key

- name: Encrypt everything with the new key, the first line of the file
  fediversity.hosting.operator_secrets:
    secret_key_file: /etc/fediversity/secret-keys
    rewrap: true
"""

RETURN = r"""
created:
  description: References of the secrets that were created, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [alice_social_mastodon/database-password]
rewrapped:
  description: How many secrets were encrypted again, or would be in check mode.
  returned: success
  type: int
  sample: 0
"""
