#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: garage_buckets
short_description: Manage buckets, access keys and permissions on Garage
version_added: "0.1.0"
description:
  - Makes the listed buckets and access keys of a Garage cluster equal to what is wanted, all of them in one call.
  - One item that cannot be done does not keep the others from being done;
    RV(results) tells about each of them, and the module fails at the end.
  - A bucket that holds objects is never deleted.
author: Fediversity hosting contributors (@fediversity)
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.garage
options:
  keys:
    description:
      - Access keys.
      - Keys whose name begins with C(fediversity/) are ours. Other keys, and their permissions, are never touched.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the key; it must begin with C(fediversity/).
          - Garage does not keep names unique. If two keys have this name the item is refused.
        type: str
        required: true
      access_key_id:
        description:
          - Id of the key, made by you and imported into Garage, such as C(GK) and 24 random hex digits.
          - Required for O(keys[].state=present). With O(keys[].state=absent) it chooses which key of that name goes.
          - Garage never takes the id of a deleted key again.
        type: str
      secret_access_key:
        description:
          - Secret of the key, made by you, such as 64 random hex digits. Required for O(keys[].state=present).
          - Keep it somewhere safe before you call this module, which never returns it.
          - The secret of a key that exists is neither read nor compared. To change it use a new key.
        type: str
      state:
        description:
          - Whether the key exists. An expired key is made valid again.
          - Deleting a key takes its permissions on all buckets.
        type: str
        choices: [present, absent]
        default: present
  buckets:
    description: Buckets.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Global alias of the bucket. Other aliases of the bucket are left as they are.
        type: str
        required: true
      id:
        description:
          - Id of the bucket, as this module returned it. With it the bucket is found whatever its name is,
            and gets O(buckets[].name) as a further alias.
          - Without it the bucket is found by its name, and refused if keys of others may use it and none of ours.
        type: str
      quotas:
        description:
          - Limits of the bucket. Not given, they are left as they are.
          - Of the two limits, the one that is not given is removed.
        type: dict
        suboptions:
          max_size:
            description: Bytes.
            type: int
          max_objects:
            description: Number of objects.
            type: int
      website:
        description: Whether the bucket is served as a website. Not given, it is left as it is.
        type: dict
        suboptions:
          enabled:
            description: Whether it is served.
            type: bool
            required: true
          index_document:
            description: Name of the object that is served for a folder.
            type: str
            default: index.html
          error_document:
            description: Name of the object that is served for errors.
            type: str
      permissions:
        description:
          - What our keys may do with the bucket. Keys of ours that are not listed lose what they have.
          - Not given, permissions are left as they are.
        type: list
        elements: dict
        suboptions:
          key:
            description: Name of the key, from O(keys) or made earlier.
            type: str
            required: true
          read:
            description: Whether the key may read and list objects.
            type: bool
            default: false
          write:
            description: Whether the key may write and delete objects.
            type: bool
            default: false
          owner:
            description: Whether the key may change the settings of the bucket and delete it.
            type: bool
            default: false
      state:
        description: Whether the bucket exists. Only an empty bucket is deleted.
        type: str
        choices: [present, absent]
        default: present
notes:
  - Garage 2.0 or newer is needed.
  - >-
    The token needs the scope C(ListKeys), C(GetBucketInfo), C(ImportKey), C(UpdateKey), C(CreateBucket),
    C(UpdateBucket), C(AddBucketAlias), C(AllowBucketKey) and C(DenyBucketKey);
    for deletions also C(DeleteBucket) and C(DeleteKey).
  - Reading costs one request and one more per bucket; Garage spends about 17 ms of CPU time on each.
seealso:
  - name: Garage administration API
    description: The API that this module uses.
    link: https://garagehq.deuxfleurs.fr/documentation/reference-manual/admin-api/
"""

EXAMPLES = r"""
- name: A bucket that one application may use, with 10 GiB
  fediversity.hosting.garage_buckets:
    admin_url: http://garage.example.org:3903
    admin_token: "{{ garage_admin_token }}"
    keys:
      - name: fediversity/alice_social_mastodon
        access_key_id: "{{ mastodon_access_key_id }}"
        secret_access_key: "{{ mastodon_secret_access_key }}"
    buckets:
      - name: alice--social--mastodon--media
        quotas:
          max_size: 10737418240
        permissions:
          - key: fediversity/alice_social_mastodon
            read: true
            write: true
  register: storage

- name: A website that one key writes and another one reads
  fediversity.hosting.garage_buckets:
    buckets:
      - name: www.example.org
        website:
          enabled: true
          error_document: error.html
        permissions:
          - {key: fediversity/editor, read: true, write: true}
          - {key: fediversity/backup, read: true}

- name: Neither bucket nor key any more
  fediversity.hosting.garage_buckets:
    buckets:
      - name: alice--social--mastodon--media
        state: absent
    keys:
      - name: fediversity/alice_social_mastodon
        state: absent
"""

RETURN = r"""
results:
  description: One entry per key and bucket, sorted by name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The word C(key) or C(bucket), a space, and the name.
      returned: always
      type: str
      sample: bucket alice--social--mastodon--media
    kind:
      description: V(key) or V(bucket).
      returned: when it exists and was not refused
      type: str
      sample: bucket
    id:
      description: Id of the bucket.
      returned: when it is a bucket that exists and was not refused
      type: str
    access_key_id:
      description: Id of the key.
      returned: when it is a key that exists and was not refused
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
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import (
    GARAGE_ARGUMENTS,
    Client,
    http_sender,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import BUCKET_ARGUMENTS, desired_from
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.provider import GarageProvider
from ansible_collections.fediversity.hosting.plugins.module_utils.module import LIMIT_ARGUMENTS, run_batch


def main() -> None:
    module = AnsibleModule(
        argument_spec={**GARAGE_ARGUMENTS, **LIMIT_ARGUMENTS, **BUCKET_ARGUMENTS}, supports_check_mode=True
    )
    connection = {name: module.params[name] for name in GARAGE_ARGUMENTS}
    run_batch(
        module,
        lambda: (
            GarageProvider(Client(http_sender(**connection), where=connection["admin_url"])),
            desired_from(module.params),
        ),
    )


if __name__ == "__main__":
    main()
