#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: garage_admin_tokens
short_description: Manage tokens of Garage's admin API
version_added: "0.1.0"
description:
  - Makes the listed tokens of the admin API of a Garage cluster equal to what is wanted, all of them in one call.
  - A token is written to a file once and shown nowhere else. Garage itself keeps only a hash of it.
  - One item that cannot be done does not keep the others from being done;
    RV(results) tells about each of them, and the module fails at the end.
  - The token that the module itself uses is neither deleted, nor narrowed below what this module needs, nor made to expire at once.
author: Fediversity hosting contributors (@fediversity)
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.garage
requirements:
  - requests
options:
  tokens:
    description:
      - Tokens.
      - Those whose name begins with C(fediversity/) are ours. Others, and the one of Garage's configuration file, are never touched.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the token; it must begin with C(fediversity/).
          - The names that end in V((new\)) and V((old\)) are used for successors and predecessors.
          - Garage does not keep names unique. If two tokens have this name the item is refused.
        type: str
        required: true
      scope:
        description:
          - Endpoints of the admin API that the token may call, in addition to O(tokens[].presets), or V(*) for all.
          - Not given, without O(tokens[].presets), it is left as it is.
        type: list
        elements: str
      presets:
        description:
          - The least scope of some tasks.
          - V(run) is for M(fediversity.hosting.garage_buckets) without deletions, with keys that are imported.
          - V(collect) is for deletions, exports and incomplete uploads.
          - V(keys) is for M(fediversity.hosting.garage_keys) without deletions. Who has it can read the secrets of all keys.
          - V(tokens) is for this module. Who has it can give himself everything.
        type: list
        elements: str
        choices: [collect, keys, run, tokens]
      expiration:
        description:
          - When the token ends, in RFC 3339, such as V(2030-12-31T23:59:59Z).
          - Without this, O(tokens[].never_expires) and O(tokens[].lifetime) it is left as it is, and an expired token is refused.
        type: str
      never_expires:
        description: Whether the token has no end. Excludes O(tokens[].expiration).
        type: bool
        default: false
      lifetime:
        description:
          - Days after which the token ends. When less than a third is left a new one takes its name and its place in
            O(tokens[].token_file), and the old one stays valid for at most another third.
          - Excludes O(tokens[].expiration) and O(tokens[].never_expires).
        type: int
      token_file:
        description:
          - File for the token, where the module runs, for its owner only (mode 0600) and without a line end.
          - Required to make a token. Room for it is made before the token is.
          - A token whose file is lost cannot be written again. Delete it and have a new one made.
          - The file of a token that is deleted is left.
        type: path
      state:
        description: Whether the token exists. V(absent) deletes all tokens of this name, with their successors and predecessors.
        type: str
        choices: [present, absent]
        default: present
notes:
  - Garage 2.0 or newer is needed.
  - >-
    The token needs the scope C(ListAdminTokens), C(CreateAdminToken), C(UpdateAdminToken) and C(DeleteAdminToken), which is worth as much
    as V(*), because it can make a token of any scope.
  - Reading costs one request.
seealso:
  - module: fediversity.hosting.garage_buckets
  - module: fediversity.hosting.garage_keys
  - name: Garage administration API
    description: The API that this module uses.
    link: https://garagehq.deuxfleurs.fr/documentation/reference-manual/admin-api/
"""

EXAMPLES = r"""
- name: A token for every day and one for deletions, each replaced by itself
  fediversity.hosting.garage_admin_tokens:
    admin_url: http://garage.example.org:3903
    admin_token: "{{ garage_configured_token }}"
    tokens:
      - name: fediversity/run
        presets: [run]
        lifetime: 90
        token_file: /etc/fediversity/garage/run.token
      - name: fediversity/collect
        presets: [collect]
        lifetime: 90
        token_file: /etc/fediversity/garage/collect.token
  delegate_to: localhost

- name: A token for the monitoring, which stays as it is
  fediversity.hosting.garage_admin_tokens:
    tokens:
      - name: fediversity/monitoring
        scope: [Metrics, GetClusterHealth]
        never_expires: true
        token_file: /etc/fediversity/garage/monitoring.token
  delegate_to: localhost

- name: Nobody has this token any more
  fediversity.hosting.garage_admin_tokens:
    tokens:
      - name: fediversity/monitoring
        state: absent
  delegate_to: localhost
"""

RETURN = r"""
results:
  description: One entry per token, sorted by name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the token.
      returned: always
      type: str
      sample: fediversity/run
    id:
      description: Id of the token, with which it begins.
      returned: when it exists and was not refused
      type: str
    scope:
      description: Endpoints that it may call.
      returned: when it exists and was not refused
      type: list
      elements: str
    expiration:
      description: When it ends; null if never.
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
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.arguments import (
    TOKEN_ARGUMENTS,
    desired_tokens,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import (
    ADMIN_LIBRARIES,
    GARAGE_ARGUMENTS,
    Client,
    http_sender,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.token_provider import TokenProvider
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.tokens import id_of
from ansible_collections.fediversity.hosting.plugins.module_utils.module import (
    LIMIT_ARGUMENTS,
    require_libraries,
    run_batch,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={**GARAGE_ARGUMENTS, **LIMIT_ARGUMENTS, **TOKEN_ARGUMENTS}, supports_check_mode=True
    )
    require_libraries(module, *ADMIN_LIBRARIES)
    connection = {name: module.params[name] for name in GARAGE_ARGUMENTS}
    run_batch(
        module,
        lambda: (
            TokenProvider(
                Client(http_sender(**connection), where=connection["admin_url"]), id_of(connection["admin_token"])
            ),
            desired_tokens(module.params["tokens"]),
        ),
    )


if __name__ == "__main__":
    main()
