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
  - What is not given is left as it is, and so is everything that belongs to others.
  - One item that cannot be done does not keep the others from being done;
    RV(results) tells about each of them, and the module fails at the end.
  - A bucket that holds objects is deleted only after they have been exported to O(buckets[].export_dir), read again from the disk, and
    compared with the bucket.
  - A bucket that somebody else has changed since this run read it is not written to.
author: Fediversity hosting contributors (@fediversity)
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.garage
requirements:
  - requests
  - boto3 and botocore, with O(buckets[].export_dir) only
options:
  s3_endpoint:
    description:
      - Scheme, host and port of Garage's S3 API, such as C(http://127.0.0.1:3900). Needed with O(buckets[].export_dir) only.
      - If not set, the environment variable E(GARAGE_S3_ENDPOINT) is used.
    type: str
  s3_region:
    description:
      - Region that Garage is configured with.
      - If not set, the environment variable E(GARAGE_S3_REGION) is used.
    type: str
    default: garage
  keys:
    description:
      - Access keys that are imported. M(fediversity.hosting.garage_keys) also has Garage make them, and knows more options.
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
          - Required to make the key. With O(keys[].state=absent) it chooses which key of that name goes.
          - Garage never takes the id of a deleted key again.
        type: str
      secret_access_key:
        description:
          - Secret of the key, made by you, such as 64 random hex digits. Required together with O(keys[].access_key_id).
          - Keep it somewhere safe before you call this module, which never returns it.
          - The secret of a key that exists is neither read nor compared. To change it use a new key.
        type: str
      state:
        description:
          - Whether the key exists. An expired key is made valid again.
          - Deleting a key takes its permissions on all buckets. It is refused if a bucket would lose its only name.
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
        description: Global alias of the bucket.
        type: str
        required: true
      id:
        description:
          - Id of the bucket, as this module returned it. With it the bucket is found whatever its name is,
            and gets O(buckets[].name) as a further alias.
          - Without it the bucket is found by its name, and refused if keys of others may use it and none of ours.
        type: str
      aliases:
        description:
          - All global aliases beside O(buckets[].name), such as the host name of a website. Others are taken away.
          - Not given, they are left as they are. An alias of another bucket is never moved.
        type: list
        elements: str
      local_aliases:
        description:
          - All names that the bucket has for single keys of ours. Others are taken away. Not given, they are left as they are.
          - The token needs the scope C(ListBuckets); Garage 2.3 shows the names of keys without permissions nowhere else.
        type: list
        elements: dict
        suboptions:
          key:
            description: Name of the key, from O(keys) or made earlier.
            type: str
            required: true
          alias:
            description: Name of the bucket for this key.
            type: str
            required: true
      quotas:
        description:
          - Limits of the bucket. Not given, they are left as they are.
          - Of the two limits, the one that is not given is removed. V(0) is a limit.
          - A limit below what the bucket holds deletes nothing and stops it from growing.
        type: dict
        suboptions:
          max_size:
            description: Bytes.
            type: int
          max_objects:
            description: Number of objects.
            type: int
      website:
        description:
          - Whether the bucket is served as a website. Not given, it is left as it is.
          - Routing rules that somebody has set are left as they are while it is served.
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
      cors_rules:
        description:
          - All CORS rules, in their order. An empty list removes them. Not given, they are left as they are.
          - Garage 2.3 or newer is needed. An older one drops them, which fails the item.
        type: list
        elements: dict
        suboptions:
          id:
            description: A name of the rule.
            type: str
          allowed_origins:
            description: Origins such as V(https://example.org), or V(*). At least one is needed.
            type: list
            elements: str
            default: []
          allowed_methods:
            description: V(GET), V(HEAD), V(PUT), V(POST) or V(DELETE). At least one is needed.
            type: list
            elements: str
            default: []
          allowed_headers:
            description: Request headers, or V(*).
            type: list
            elements: str
            default: []
          expose_headers:
            description: Response headers that scripts may read.
            type: list
            elements: str
            default: []
          max_age_seconds:
            description: How long browsers may remember the answer.
            type: int
      lifecycle_rules:
        description:
          - All lifecycle rules. An empty list removes them. Not given, they are left as they are.
          - Garage 2.3 or newer is needed. An older one drops them, which fails the item.
        type: list
        elements: dict
        suboptions:
          id:
            description: A name of the rule.
            type: str
          enabled:
            description: Whether the rule is in force.
            type: bool
            default: true
          prefix:
            description: Only objects whose names begin so.
            type: str
          object_size_greater_than:
            description: Only objects of more bytes.
            type: int
          object_size_less_than:
            description: Only objects of less bytes.
            type: int
          expiration_days:
            description: Objects are deleted so many days after they were made.
            type: int
          expiration_date:
            description: Objects are deleted at this date, as C(YYYY-MM-DD). Excludes O(buckets[].lifecycle_rules[].expiration_days).
            type: str
          abort_incomplete_multipart_upload_days:
            description: Uploads that are not completed are removed so many days after they were begun.
            type: int
      permissions:
        description:
          - What our keys may do with the bucket. Keys of ours that are not listed lose what they have.
          - A key with O(buckets[].permissions[].read) only can change nothing, which is the nearest that Garage has to an immutable bucket.
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
      cleanup_incomplete_uploads:
        description:
          - Remove uploads that were begun more than so many seconds ago and never completed.
          - Check mode does not know their ages and predicts that all of them are removed.
        type: int
      export_dir:
        description:
          - Directory, where the module runs, for the objects of a bucket with O(buckets[].state=absent). They are kept in a new directory inside it.
          - All keys lose the right to write to the bucket before the export begins.
          - Without it a bucket that holds objects is not deleted.
        type: path
      state:
        description:
          - Whether the bucket exists.
          - A bucket that keys of others use, or that no key of ours has anything to do with, is deleted only when O(buckets[].id) is given.
        type: str
        choices: [present, absent]
        default: present
notes:
  - Garage 2.0 or newer is needed.
  - >-
    The token needs the scope C(ListKeys), C(ListBuckets), C(GetBucketInfo), C(ImportKey), C(UpdateKey), C(CreateBucket),
    C(UpdateBucket), C(AddBucketAlias), C(RemoveBucketAlias), C(AllowBucketKey) and C(DenyBucketKey), which is the preset V(run)
    of M(fediversity.hosting.garage_admin_tokens); for deletions and O(buckets[].cleanup_incomplete_uploads) also the preset V(collect).
  - Reading costs two requests and one more per bucket; Garage spends about 17 ms of CPU time on each.
seealso:
  - module: fediversity.hosting.garage_keys
  - module: fediversity.hosting.garage_admin_tokens
  - module: fediversity.hosting.garage_access
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

- name: Media that browsers load from another host, without old uploads and thumbnails
  fediversity.hosting.garage_buckets:
    buckets:
      - name: alice--social--mastodon--media
        aliases: [media.alice.example.org]
        website:
          enabled: true
        cors_rules:
          - allowed_origins: ["https://social.alice.example.org"]
            allowed_methods: [GET, HEAD]
            max_age_seconds: 86400
        lifecycle_rules:
          - prefix: cache/
            expiration_days: 30
          - abort_incomplete_multipart_upload_days: 2
        cleanup_incomplete_uploads: 172800

- name: Neither bucket nor key any more; the objects are kept on the controller
  fediversity.hosting.garage_buckets:
    buckets:
      - name: alice--social--mastodon--media
        state: absent
        export_dir: /srv/exports
    s3_endpoint: http://garage.example.org:3900
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
    export:
      description: Where the objects of a deleted bucket are.
      returned: when objects were exported
      type: dict
      contains:
        directory:
          description: Directory with the objects and C(manifest.jsonl), which describes them.
          type: str
        objects:
          description: Number of objects.
          type: int
        bytes:
          description: Sum of their sizes.
          type: int
        manifest_sha256:
          description: SHA-256 of the manifest, in hexadecimal.
          type: str
    uploads_deleted:
      description: How many incomplete uploads were removed.
      returned: with O(buckets[].cleanup_incomplete_uploads)
      type: int
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
unnamed_buckets:
  description:
    - Buckets that have no name at all, sorted by id. A crash of Garage while it made a bucket leaves one behind.
    - Give O(buckets[].id) together with a name to use or delete one.
  returned: when the token may list buckets
  type: list
  elements: dict
  contains:
    id:
      description: Id of the bucket.
      type: str
    created:
      description: When it was made; empty if Garage does not tell.
      type: str
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.arguments import (
    BUCKET_ARGUMENTS,
    desired_buckets,
    desired_keys,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.cleanup import cleaned_up
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import (
    ADMIN_LIBRARIES,
    GARAGE_ARGUMENTS,
    Client,
    http_sender,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.plan import shares
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.provider import GarageProvider
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.s3 import S3_ARGUMENTS, S3_LIBRARIES, s3_client
from ansible_collections.fediversity.hosting.plugins.module_utils.module import (
    LIMIT_ARGUMENTS,
    leave,
    require_libraries,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Limits, reconcile


def opener(params: dict[str, Any]) -> Any:
    """What opens the S3 API with a key; None without an endpoint."""
    if not params["s3_endpoint"]:
        return None
    options = {name: params[name] for name in ("validate_certs", "ca_path", "timeout")}
    return partial(s3_client, params["s3_endpoint"], params["s3_region"], **options)


def reconciled(module: AnsibleModule) -> dict[str, Any]:
    """Make keys and buckets, remove old uploads, and return the result of the module."""
    params = module.params
    connection = {name: params[name] for name in GARAGE_ARGUMENTS}
    client = Client(http_sender(**connection), where=connection["admin_url"])
    provider = GarageProvider(client, opener(params))
    desired = [*desired_keys(params["keys"] or ()), *desired_buckets(params["buckets"] or ())]
    limits = Limits(max_delete_percent=params["max_delete_percent"])
    result = reconcile(provider, desired, check=module.check_mode, limits=limits, shares=shares)
    for item in result["results"]:
        if item["name"] in provider.exports:
            item["export"] = provider.exports[item["name"]]
    result["unnamed_buckets"] = provider.surroundings.unnamed()
    return cleaned_up(client, desired, provider.buckets, result, check=module.check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={**GARAGE_ARGUMENTS, **S3_ARGUMENTS, **LIMIT_ARGUMENTS, **BUCKET_ARGUMENTS},
        supports_check_mode=True,
    )
    require_libraries(module, *ADMIN_LIBRARIES)
    if any(bucket["export_dir"] for bucket in module.params["buckets"] or ()):
        require_libraries(module, *S3_LIBRARIES)
    try:
        result = reconciled(module)
    except HostingError as error:
        result = {"failed": True, "changed": False, "msg": str(error), "results": []}
    leave(module, result)


if __name__ == "__main__":
    main()
