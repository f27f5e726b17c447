#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_power
short_description: Reset the virtual machine of a machine that nobody can reach
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Cuts the power of a running virtual machine and lets it boot. A paused one is stopped and started, a stopped one is started.
  - The virtual machine is found by the tag C(fediversity-machine-<name>), never by its name. Without that tag, or when the tag
    is on another VMID than O(vmid), nothing is done.
  - Until a guarded switch is committed, a reset takes the machine back to its old system. Whether that is so is the
    caller's business; the playbook C(fediversity.hosting.site) resets only machines that are silent in the middle of a switch.
options:
  name:
    description: Name of the machine.
    type: str
    required: true
  vmid:
    description: Where the machine is known to be. It is refused if the tag is somewhere else.
    type: int
  action:
    description: V(reset) is a power cut and a boot.
    type: str
    choices: [reset]
    default: reset
seealso:
  - module: fediversity.hosting.proxmox_vms
  - module: fediversity.hosting.nixos_transaction
extends_documentation_fragment:
  - fediversity.hosting.proxmox
  - fediversity.hosting.attributes
attributes:
  check_mode:
    support: full
    details: Looks up the virtual machine and says what would be sent.
  diff_mode:
    support: none
    details: There is no state to compare.
  idempotent:
    support: none
    details: Each call is a reset.
"""

EXAMPLES = r"""
- name: Reset a machine that has been silent since its switch began
  fediversity.hosting.proxmox_power:
    name: vm-mastodon
    vmid: 101
  delegate_to: localhost

- name: Wait for it, and close the interrupted switch
  fediversity.hosting.nixos_transaction:
    decision: settle
"""

RETURN = r"""
vmid:
  description: The virtual machine.
  returned: success
  type: int
node:
  description: The node that has it.
  returned: success
  type: str
requests:
  description: What was sent, or would be sent in check mode, one or two of V(reset), V(stop) and V(start).
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.module import require_libraries
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.connection import (
    CONNECTION_ARGUMENTS,
    CONNECTION_RULES,
    LIBRARIES,
    client_of,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.power import carry_out, plan_reset


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "vmid": {"type": "int"},
            "action": {"type": "str", "choices": ["reset"], "default": "reset"},
            **CONNECTION_ARGUMENTS,
        },
        supports_check_mode=True,
        **CONNECTION_RULES,
    )
    require_libraries(module, *LIBRARIES)
    try:
        client = client_of(module.params)
        reset = plan_reset(client, module.params["name"], module.params["vmid"])
        if not module.check_mode:
            carry_out(client, reset, budget=module.params["task_timeout"])
    except HostingError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, vmid=reset.vmid, node=reset.node, requests=list(reset.requests))


if __name__ == "__main__":
    main()
