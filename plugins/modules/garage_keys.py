#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: garage_keys
short_description: Manage access keys on Garage
version_added: "0.1.0"
description:
  - Makes the listed access keys of a Garage cluster equal to what is wanted, all of them in one call.
  - Keys are imported, or made by Garage, whose secret then goes to a file and nowhere else.
  - One item that cannot be done does not keep the others from being done;
    RV(results) tells about each of them, and the module fails at the end.
  - What keys may do with buckets is managed by M(fediversity.hosting.garage_buckets).
author: Fediversity hosting contributors (@fediversity)
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.garage
requirements:
  - requests
options:
  keys:
    description:
      - Access keys.
      - Keys whose name begins with C(fediversity/) are ours. Other keys are never touched.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the key; it must begin with C(fediversity/).
          - Garage does not keep names unique. If two keys have this name the item is refused.
        type: str
        required: true
      access_key_id:
        description:
          - Id of a key that is made by you and imported into Garage, such as C(GK) and 24 random hex digits.
          - Without it Garage makes the key. With O(keys[].state=absent) it chooses which key of that name goes.
          - Garage never takes the id of a deleted key again.
        type: str
      secret_access_key:
        description:
          - Secret of a key that is imported, such as 64 random hex digits. Required together with O(keys[].access_key_id).
          - The secret of a key that exists is not compared with it. To change a secret use a new key.
        type: str
      secret_file:
        description:
          - File for the secret, where the module runs, for its owner only (mode 0600) and without a line end.
          - Required to have Garage make a key. Room for the secret is made before the key is.
          - A file that is lost is written again, because Garage still has the secret. A file that holds anything else is refused.
          - The file of a key that is deleted is left.
        type: path
      create_bucket:
        description: Whether the key may make buckets through the S3 API. Not given, it is left as it is; a new key may not.
        type: bool
      expiration:
        description:
          - When the key ends, in RFC 3339, such as V(2030-12-31T23:59:59Z). An instant of the past ends it at once, and it can come back.
          - Without this and O(keys[].never_expires) it is left as it is, except that an expired key is made valid again.
        type: str
      never_expires:
        description: Whether the key has no end. Excludes O(keys[].expiration).
        type: bool
        default: false
      state:
        description:
          - Whether the key exists.
          - Deleting a key takes its permissions on all buckets. It is refused if a bucket would lose its only name.
        type: str
        choices: [present, absent]
        default: present
notes:
  - Garage 2.0 or newer is needed.
  - >-
    The token needs the scope C(ListKeys), C(CreateKey), C(ImportKey), C(UpdateKey), and with O(keys[].secret_file) or
    O(keys[].create_bucket) also C(GetKeyInfo), which shows the secrets of all keys. This is the preset V(keys) of
    M(fediversity.hosting.garage_admin_tokens). Deletions need C(ListBuckets) and C(DeleteKey).
  - Reading costs one request, and one more per key with O(keys[].create_bucket), or with O(keys[].secret_file) and without
    O(keys[].secret_access_key).
seealso:
  - module: fediversity.hosting.garage_buckets
  - module: fediversity.hosting.garage_admin_tokens
  - name: Garage administration API
    description: The API that this module uses.
    link: https://garagehq.deuxfleurs.fr/documentation/reference-manual/admin-api/
"""

EXAMPLES = r"""
- name: A key that Garage makes; its secret is on the controller afterwards
  fediversity.hosting.garage_keys:
    admin_url: http://garage.example.org:3903
    admin_token: "{{ garage_admin_token }}"
    keys:
      - name: fediversity/backup
        secret_file: /etc/fediversity/garage/backup.secret
        expiration: "2030-12-31T23:59:59Z"
  delegate_to: localhost

- name: A key that was made elsewhere, and may make buckets
  fediversity.hosting.garage_keys:
    keys:
      - name: fediversity/registry
        access_key_id: "{{ registry_access_key_id }}"
        secret_access_key: "{{ registry_secret_access_key }}"
        create_bucket: true
        never_expires: true
  delegate_to: localhost

- name: The second of two keys of one name goes
  fediversity.hosting.garage_keys:
    keys:
      - name: fediversity/backup
        access_key_id: GK31c2f218a2e44f485b94239e
        state: absent
  delegate_to: localhost
"""

RETURN = r"""
results:
  description: One entry per key, sorted by name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The word C(key), a space, and the name.
      returned: always
      type: str
      sample: key fediversity/backup
    kind:
      description: V(key).
      returned: when it exists and was not refused
      type: str
      sample: key
    access_key_id:
      description: Id of the key.
      returned: when it exists and was not refused
      type: str
    action:
      description: What was done, or would be done in check mode; V(refused) if nothing was tried.
      returned: always
      type: str
      sample: create
    changed:
      description: Whether the item was changed.
      returned: always
      type: bool
    failed:
      description: Whether the item failed or was refused.
      returned: always
      type: bool
    msg:
      description: What went wrong, empty if nothing did.
      returned: always
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.arguments import KEY_ARGUMENTS, desired_keys
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import (
    ADMIN_LIBRARIES,
    GARAGE_ARGUMENTS,
    Client,
    http_sender,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.provider import GarageProvider
from ansible_collections.fediversity.hosting.plugins.module_utils.module import (
    LIMIT_ARGUMENTS,
    require_libraries,
    run_batch,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={**GARAGE_ARGUMENTS, **LIMIT_ARGUMENTS, **KEY_ARGUMENTS}, supports_check_mode=True
    )
    require_libraries(module, *ADMIN_LIBRARIES)
    connection = {name: module.params[name] for name in GARAGE_ARGUMENTS}
    run_batch(
        module,
        lambda: (
            GarageProvider(Client(http_sender(**connection), where=connection["admin_url"])),
            desired_keys(module.params["keys"]),
        ),
    )


if __name__ == "__main__":
    main()
