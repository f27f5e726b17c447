#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: valkey_users
short_description: Manage the ACL users of a Valkey or Redis server
version_added: "0.1.0"
description:
  - Makes ACL users with their passwords, keys, channels and commands on one Valkey or Redis server, all in one call, over
    one connection and a handful of round trips.
  - Only SHA-256 hashes of passwords are sent to the server, and no hash is returned, shown or logged. The hash has no salt,
    so passwords must be long and random.
  - Rules are compared by what they permit. The server itself is asked what the wanted rules mean, with users that are made,
    listed and deleted in one transaction. In check mode nothing is written, and the meaning is computed.
  - Users carry an owner mark, a selector without commands, which permits nothing. A user that exists without the mark of its
    item is refused and never touched.
  - An item that is refused or fails does not keep the others from being made; the module fails at the end.
  - In the end the server saves its users, also when nothing was changed, because it does not tell whether its file is up to
    date. C(ACL SAVE) is used where the setting C(aclfile) is set, otherwise C(CONFIG REWRITE).
options:
  users:
    description:
      - The users, each listed once.
      - Users that are not listed are not touched.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the user, 1 to 128 ASCII letters, digits and C(_.:@/+-), with a letter or digit first.
          - The user V(default) is changed only with O(users[].adopt). The user that we are logged in as is never changed.
        type: str
        required: true
      passwords:
        description:
          - Passwords that are valid, all at the same time, so that an old and a new one overlap during a rotation.
          - They are hashed where the module runs, which should be the controller.
          - Without this and O(users[].password_hashes) the passwords of the user stay as they are, and a new user has none
            and cannot log in.
        type: list
        elements: str
      password_hashes:
        description:
          - SHA-256 hashes of passwords that are valid, in hexadecimal, together with those of O(users[].passwords).
          - C({{ password | hash('sha256') }}) makes one on the controller, wherever the module runs.
          - An empty list takes all passwords away.
        type: list
        elements: str
      enabled:
        description:
          - Whether the user may log in.
          - A user that gets disabled is disconnected.
        type: bool
        default: true
      prefix:
        description:
          - A tenant, for example V(alice). The user may use the keys and the channels C(alice:*), with all commands except
            C(@admin), C(@dangerous) and those that tell about, or change, what belongs to other tenants. C(info) is permitted.
          - O(users[].keys), O(users[].channels) and O(users[].commands) add to it.
          - Users with the same prefix must have the same O(users[].mark).
        type: str
      keys:
        description:
          - Key patterns as in C(ACL SETUSER), V(~pattern), V(%R~pattern) to read or V(%W~pattern) to write.
          - Permissions to only read or write need Redis 7.0 or Valkey.
        type: list
        elements: str
        default: []
      channels:
        description: Patterns of channels as in C(ACL SETUSER), V(&pattern).
        type: list
        elements: str
        default: []
      commands:
        description:
          - Commands and categories as in C(ACL SETUSER), in this order, for example V(+@read), V(-keys), V(+config|get).
          - Commands and categories that the server does not have are refused.
        type: list
        elements: str
        default: []
      selectors:
        description:
          - Further sets of rules, each independent of the others. What one of them permits is permitted.
          - They need Redis 7.0 or Valkey.
        type: list
        elements: dict
        default: []
        suboptions:
          keys:
            description: Key patterns, as O(users[].keys).
            type: list
            elements: str
            default: []
          channels:
            description: Patterns of channels, as O(users[].channels).
            type: list
            elements: str
            default: []
          commands:
            description: Commands and categories, as O(users[].commands).
            type: list
            elements: str
            default: []
      mark:
        description:
          - Whose the user is, for example the application instance, of the same characters as a name.
          - The default is O(users[].name).
        type: str
      adopt:
        description:
          - Whether to take over a user that exists and carries no mark. All its rules are replaced.
        type: bool
        default: false
      state:
        description:
          - With V(absent), the user is deleted and disconnected. Keys are left alone.
        type: str
        choices: [present, absent]
        default: present
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.valkey
notes:
  - ACL users are not replicated. Call the module for every primary, replica and cluster node. Sentinels have users of their own.
  - An ACL file that was edited by hand without C(ACL LOAD) is overwritten.
seealso:
  - module: community.general.redis_info
  - name: ACL SETUSER
    description: The rules that users are made of.
    link: https://valkey.io/commands/acl-setuser/
author:
  - Fediversity hosting contributors (@fediversity)
"""

EXAMPLES = r"""
- name: Make the users of two tenants
  fediversity.hosting.valkey_users:
    login_host: cache.example.org
    login_user: provisioner
    login_password: "{{ vault_valkey_password }}"
    tls: true
    users:
      - name: carol_photos_pixelfed
        prefix: carol_photos_pixelfed
        password_hashes: ["{{ vault_carol_password | hash('sha256') }}"]
      - name: dora_gallery_pixelfed
        prefix: dora_gallery_pixelfed
        passwords: ["{{ vault_dora_password }}"]
        commands: ["+scan"]
  delegate_to: localhost

- name: Rotate a password, with the old one valid until the application has the new one
  fediversity.hosting.valkey_users:
    login_host: cache.example.org
    users:
      - name: carol_photos_pixelfed
        prefix: carol_photos_pixelfed
        passwords: ["{{ vault_new_password }}", "{{ vault_old_password }}"]
  delegate_to: localhost

- name: A user who reads everything and writes one list
  fediversity.hosting.valkey_users:
    login_socket: /run/valkey/valkey.sock
    users:
      - name: statistics
        passwords: ["{{ vault_statistics_password }}"]
        keys: ["%R~*"]
        commands: ["+@read", "-keys"]
        selectors:
          - keys: ["~statistics:queue"]
            commands: ["+lpush", "+brpop"]

- name: Close the door for those without a name
  fediversity.hosting.valkey_users:
    login_user: provisioner
    users:
      - name: default
        adopt: true
        enabled: false
        password_hashes: []
"""

RETURN = r"""
results:
  description: One entry per user, sorted by name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the user.
      type: str
      returned: always
    action:
      description: What was done, or would be done in check mode.
      type: str
      returned: always
      sample: create
    changed:
      description: Whether the item was changed, or would be in check mode.
      type: bool
      returned: always
    failed:
      description: Whether the item was refused or could not be changed.
      type: bool
      returned: always
    msg:
      description: Why the item failed and what to do about it.
      type: str
      returned: always
    enabled:
      description: Whether the user may log in.
      type: bool
      returned: when the user exists
  sample:
    - name: carol_photos_pixelfed
      action: create
      changed: true
      failed: false
      msg: ""
      enabled: true
persistence:
  description: Whether the users outlive a restart of the server.
  returned: when the server could be read
  type: dict
  contains:
    method:
      description: V(aclfile) for C(ACL SAVE), V(config) for C(CONFIG REWRITE), V(none) if a restart loses the users.
      type: str
    saved:
      description: Whether the server has saved its users in this run.
      type: bool
  sample:
    method: aclfile
    saved: true
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.module import (
    LIMIT_ARGUMENTS,
    leave,
    require_libraries,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Limits, reconcile
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.client import CONNECTION_ARGUMENTS, server_of
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.model import from_options
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.persistence import warnings
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.provider import (
    ValkeyUsers,
    by_computation,
    by_probe,
)

RULES_ARGUMENTS = {
    # key patterns are no secrets
    "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "channels": {"type": "list", "elements": "str", "default": []},
    "commands": {"type": "list", "elements": "str", "default": []},
}

USER_ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "passwords": {"type": "list", "elements": "str", "no_log": True},
    "password_hashes": {"type": "list", "elements": "str", "no_log": True},
    "enabled": {"type": "bool", "default": True},
    "prefix": {"type": "str"},
    **RULES_ARGUMENTS,
    "selectors": {"type": "list", "elements": "dict", "default": [], "options": RULES_ARGUMENTS},
    "mark": {"type": "str"},
    "adopt": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}

ARGUMENTS = {
    **CONNECTION_ARGUMENTS,
    "users": {"type": "list", "elements": "dict", "required": True, "options": USER_ARGUMENTS},
    **LIMIT_ARGUMENTS,
}


def reconciled(module: AnsibleModule) -> dict[str, Any]:
    """Make the users, have the server save them, and return the result of the module."""
    provider = ValkeyUsers(server_of(module.params), by_computation if module.check_mode else by_probe)
    desired = from_options(module.params["users"])
    limits = Limits(max_delete_percent=module.params["max_delete_percent"])
    result = reconcile(provider, desired, check=module.check_mode, limits=limits)
    kept = provider.persistence() if module.check_mode else provider.save()
    for warning in warnings(provider.facts, result["changed"]):
        module.warn(warning)
    result["persistence"] = kept.result()
    if kept.problem is not None:
        result |= {"failed": True, "msg": f"{result['msg']}; {kept.problem}"}
    return result


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    require_libraries(module, "redis")
    try:
        result = reconciled(module)
    except HostingError as error:
        result = {"failed": True, "changed": False, "msg": str(error), "results": []}
    leave(module, result)


if __name__ == "__main__":
    main()
