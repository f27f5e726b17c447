#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: garage_access
short_description: Prove through S3 what access keys of Garage can do
version_added: "0.1.0"
description:
  - Tries with each listed key what it should be able to do with buckets, and what it should not, and fails where
    Garage lets it do more or less. Nothing is changed.
  - One check that fails does not keep the others from being made; RV(results) tells about each of them.
author: Fediversity hosting contributors (@fediversity)
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
options:
  s3_endpoint:
    description:
      - Scheme, host and port of Garage's S3 API, such as C(http://127.0.0.1:3900).
      - If not set, the environment variable E(GARAGE_S3_ENDPOINT) is used.
    type: str
    required: true
  s3_region:
    description:
      - Region of the S3 API, C(s3_region) in Garage's configuration file.
      - If not set, the environment variable E(GARAGE_S3_REGION) is used.
    type: str
    default: garage
  validate_certs:
    description: Whether to check the server's certificate when O(s3_endpoint) is an HTTPS URL.
    type: bool
    default: true
  ca_path:
    description: File with the certificates of the authorities to trust, in PEM format. The default is the system's.
    type: path
  timeout:
    description: Seconds to wait for an answer.
    type: int
    default: 30
  keys:
    description: Access keys. Absent ones are left out, and so are those without O(keys[].secret_access_key), with a warning.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the key in the C(permissions) of O(buckets).
        type: str
      access_key_id:
        description: Id of the key. Required with O(keys[].secret_access_key).
        type: str
      secret_access_key:
        description: Secret of the key.
        type: str
      state:
        description: Whether the key should exist.
        type: str
        choices: [present, absent]
        default: present
      buckets:
        description: Buckets that the key should reach, with exactly these permissions, in addition to O(buckets).
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: A name of the bucket that the key can use, or the bucket's id.
            type: str
            required: true
          read:
            description: Whether it should be able to list and read objects.
            type: bool
            default: false
          write:
            description: Whether it should be able to write and delete objects.
            type: bool
            default: false
          owner:
            description: Whether it should be able to see the settings of the bucket.
            type: bool
            default: false
      refused:
        description:
          - Names or ids of buckets that exist and that the key should not reach at all.
          - A name that the key cannot resolve proves nothing and fails.
          - Those of O(buckets) that do not name the key are added.
        type: list
        elements: str
        default: []
      only:
        description: Whether every bucket that the key lists must be in O(keys[].buckets) or O(buckets), under that name.
        type: bool
        default: true
  buckets:
    description:
      - Buckets as O(fediversity.hosting.garage_buckets#module:buckets), so that what was wanted is proved with the same list.
      - Their C(name), C(aliases), C(local_aliases), C(permissions) and C(state) are read.
      - Each key of O(keys) should have the permissions that are given to its name, and none where it is not named.
        A bucket without C(permissions) may be reached or not.
    type: list
    elements: dict
    default: []
requirements:
  - boto3
notes:
  - >-
    To prove that a key can or cannot write, an object with a random name beginning with C(fediversity-access-check-)
    and a multipart upload are written and removed at once. In check mode this is left out.
seealso:
  - module: fediversity.hosting.garage_buckets
"""

EXAMPLES = r"""
- name: Two operators' keys reach their own bucket and not the other's
  fediversity.hosting.garage_access:
    s3_endpoint: http://garage.example.org:3900
    keys:
      - access_key_id: "{{ alice_access_key_id }}"
        secret_access_key: "{{ alice_secret_access_key }}"
        buckets:
          - {name: alice--social--mastodon--media, read: true, write: true}
        refused: [bob--photos--pixelfed--media]
      - access_key_id: "{{ bob_access_key_id }}"
        secret_access_key: "{{ bob_secret_access_key }}"
        buckets:
          - {name: bob--photos--pixelfed--media, read: true, write: true}
        refused: [alice--social--mastodon--media]

- name: Exactly what was wanted of these keys and buckets
  fediversity.hosting.garage_access:
    keys: "{{ garage_keys }}"
    buckets: "{{ garage_buckets }}"

- name: The key of a backup only reads
  fediversity.hosting.garage_access:
    keys:
      - access_key_id: "{{ backup_access_key_id }}"
        secret_access_key: "{{ backup_secret_access_key }}"
        buckets:
          - {name: www.example.org, read: true}
"""

RETURN = r"""
results:
  description: One entry per key and bucket, and one per key for what it lists.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The id of the key, the word C(on), and the name of the bucket; or the id alone.
      returned: always
      type: str
      sample: GK31c2f218a2e44f485b94239e on alice--social--mastodon--media
    access_key_id:
      description: Id of the key.
      returned: always
      type: str
    bucket:
      description: Name of the bucket, as it was given.
      returned: for a bucket
      type: str
    operations:
      description: What came of each operation; V(allowed), V(refused) or V(missing) for a bucket that is not there.
      returned: for a bucket
      type: dict
      sample: {get_object: allowed, put_object: refused}
    changed:
      description: Always false.
      returned: always
      type: bool
    failed:
      description: Whether the key can do more or less than it should, or this could not be found out.
      returned: always
      type: bool
    msg:
      description: What is wrong, empty if nothing is.
      returned: always
      type: str
"""

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.access import (
    Access,
    check_bucket,
    listed_names,
    of_buckets,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.s3 import S3_LIBRARIES, s3_client
from ansible_collections.fediversity.hosting.plugins.module_utils.module import leave, require_libraries

_FLAG = {"type": "bool", "default": False}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "s3_endpoint": {"type": "str", "required": True, "fallback": (env_fallback, ["GARAGE_S3_ENDPOINT"])},
    "s3_region": {"type": "str", "default": "garage", "fallback": (env_fallback, ["GARAGE_S3_REGION"])},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 30},
    "keys": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "no_log": False,
        "options": {
            "name": {"type": "str"},
            "access_key_id": {"type": "str"},
            "secret_access_key": {"type": "str", "no_log": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "buckets": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "read": _FLAG,
                    "write": _FLAG,
                    "owner": _FLAG,
                },
            },
            "refused": {"type": "list", "elements": "str", "default": []},
            "only": {"type": "bool", "default": True},
        },
        "required_by": {"secret_access_key": ["access_key_id"]},
    },
    "buckets": {"type": "list", "elements": "dict", "default": []},
}


def check_key(params: Mapping[str, Any], key: Mapping[str, Any], *, check_mode: bool) -> list[dict[str, Any]]:
    """The results for one element of ``keys``."""
    key_id = str(key["access_key_id"])
    try:
        s3 = s3_client(
            params["s3_endpoint"],
            params["s3_region"],
            key_id,
            key["secret_access_key"],
            validate_certs=params["validate_certs"],
            ca_path=params["ca_path"],
            timeout=params["timeout"],
        )
        names = listed_names(s3)
        shared = of_buckets(params["buckets"], key["name"])
    except HostingError as error:
        # a key that is not accepted would be refused everywhere, which proves nothing
        return [_result(key_id, key_id, str(error))]
    wanted = [Access(item["name"], item["read"], item["write"], item["owner"]) for item in key["buckets"]]
    known = {access.bucket for access in wanted} | shared.names
    surplus = [name for name in names if name not in known] if key["only"] else []
    wrong = f"the key should not reach: {', '.join(surplus)}" if surplus else ""
    results = [_result(key_id, key_id, wrong)]
    for access in (*wanted, *shared.accesses, *map(Access, key["refused"])):
        finding = check_bucket(s3, access, tries_writes=not check_mode)
        further = {"bucket": access.bucket, "operations": dict(finding.verdicts)}
        results.append(_result(f"{key_id} on {access.bucket}", key_id, finding.wrong) | further)
    return results


def _result(name: str, key_id: str, wrong: str) -> dict[str, Any]:
    return {"name": name, "access_key_id": key_id, "changed": False, "failed": bool(wrong), "msg": wrong}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    require_libraries(module, *S3_LIBRARIES)
    present = [key for key in module.params["keys"] if key["state"] == "present"]
    left_out = [str(key["name"] or key["access_key_id"]) for key in present if key["secret_access_key"] is None]
    if left_out:
        module.warn(f"Nothing is proved of keys without secret_access_key: {', '.join(left_out)}")
    results = [
        result
        for key in present
        if key["secret_access_key"] is not None
        for result in check_key(module.params, key, check_mode=module.check_mode)
    ]
    failed = [result for result in results if result["failed"]]
    text = f"access: {len(results)} checks"
    if failed:
        text += f"; {len(failed)} failed: " + "; ".join(f"{item['name']}: {item['msg']}" for item in failed[:5])
    leave(module, {"changed": False, "failed": bool(failed), "msg": text, "results": results})


if __name__ == "__main__":
    main()
