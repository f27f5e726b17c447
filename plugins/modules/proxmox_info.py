#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_info
short_description: List the guests, nodes and storages of a Proxmox VE cluster
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Lists virtual machines, containers, nodes and storages of the whole cluster with one request, whatever their number.
  - Guests that the server has no name for at the moment (new ones, or those of a node that is down) are listed without one.
    Two guests of one name are two entries.
  - The list is up to 10 seconds old where name, status, template and sizes are concerned; VMID, node, tags, pool and lock
    are of this moment.
  - Only what the user may audit is listed. A user without any right gets an empty list, not an error.
options:
  names:
    description: Only guests that have one of these names, in Proxmox VE or by the tag C(fediversity-machine-NAME).
    type: list
    elements: str
    default: []
  vmids:
    description: Only guests with one of these VMIDs.
    type: list
    elements: int
    default: []
  tags:
    description: Only guests that have all of these tags.
    type: list
    elements: str
    default: []
  pools:
    description: Only guests in one of these pools.
    type: list
    elements: str
    default: []
  nodes:
    description: Only guests on one of these nodes.
    type: list
    elements: str
    default: []
  config:
    description:
      - Also read the configuration of each listed guest, one request for each.
      - A guest whose configuration cannot be read, for example because its node is down, does not fail the module;
        RV(guests[].config_error) tells why.
    type: bool
    default: false
  parallel:
    description: How many configurations are read at the same time, each over a connection of its own.
    type: int
    default: 4
seealso:
  - module: fediversity.hosting.proxmox_vms
extends_documentation_fragment:
  - fediversity.hosting.proxmox
  - fediversity.hosting.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is ever changed.
  diff_mode:
    support: N/A
    details: Nothing is ever changed.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: List everything that the token may see
  fediversity.hosting.proxmox_info:
    api_host: pve1.example.org,pve2.example.org
    api_user: fediversity@pve
    api_token_id: hosting
    api_token_secret: "{{ proxmox_token_secret }}"
  delegate_to: localhost
  register: cluster

- name: Read the configuration of our machines on one node
  fediversity.hosting.proxmox_info:
    tags: [fediversity]
    nodes: [pve1]
    config: true
  delegate_to: localhost
"""

RETURN = r"""
guests:
  description: Virtual machines and containers, sorted by VMID.
  returned: success
  type: list
  elements: dict
  contains:
    vmid:
      description: VMID.
      type: int
      sample: 100
    name:
      description: Name in Proxmox VE, null while the server does not know it.
      type: str
      sample: vm-mastodon
    machine:
      description: Name of the machine by our tag, null if there is no such tag.
      type: str
      sample: vm-mastodon
    type:
      description: V(qemu) for virtual machines, V(lxc) for containers.
      type: str
      sample: qemu
    node:
      description: Node that has the guest.
      type: str
      sample: pve1
    status:
      description: V(running), V(stopped), or V(unknown) while the server does not know it.
      type: str
      sample: running
    template:
      description: Whether it is a template.
      type: bool
      sample: false
    tags:
      description: Tags, sorted.
      type: list
      elements: str
      sample: [fediversity, fediversity-machine-vm-mastodon]
    pool:
      description: Resource pool, null if there is none or it may not be seen.
      type: str
      sample: alice
    lock:
      description: What locks the guest, for example V(backup).
      type: str
      sample: null
    hastate:
      description: State in the HA manager, null if it does not manage the guest.
      type: str
      sample: null
    maxcpu:
      description: Number of processors.
      type: float
      sample: 2
    maxmem:
      description: Memory in bytes.
      type: int
      sample: 2147483648
    maxdisk:
      description: Size of the first disk in bytes.
      type: int
      sample: 21474836480
    cpu:
      description: Use of the processors, 0 to 1.
      type: float
      sample: 0.05
    mem:
      description: Memory in use in bytes.
      type: int
      sample: 1073741824
    uptime:
      description: Seconds since the start.
      type: int
      sample: 86400
    config:
      description:
        - Configuration with its property strings taken apart, null if it could not be read.
        - Pending changes are shown as if they had taken effect, as the API does. A password is never shown.
      returned: O(config) is V(true)
      type: dict
      sample:
        agent: {enabled: "1"}
        boot: {order: [scsi0, net0]}
        cores: "2"
        memory: "2048"
        net0: {virtio: "BC:24:11:00:00:01", bridge: vmbr0}
        scsi0: {file: "local:100/vm-100-disk-0.qcow2", size: 20G, bytes: 21474836480}
        tags: [fediversity, fediversity-machine-vm-mastodon]
    config_error:
      description: Why the configuration could not be read, else empty.
      returned: O(config) is V(true)
      type: str
      sample: ""
nodes:
  description: Nodes, sorted by name. A node that is down has no sizes.
  returned: success
  type: list
  elements: dict
  sample: [{node: pve1, online: true, maxcpu: 16, cpu: 0.1, maxmem: 68719476736, mem: 8589934592, maxdisk: 107374182400,
    disk: 21474836480, uptime: 864000}]
storages:
  description: Storages, one entry for each node that has them, sorted by name and node.
  returned: success
  type: list
  elements: dict
  sample: [{storage: local, node: pve1, available: true, shared: false, content: [images, import, iso], type: dir,
    maxdisk: 107374182400, disk: 21474836480}]
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
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.info import Filters, read

FILTERS = {
    "names": {"type": "list", "elements": "str", "default": []},
    "vmids": {"type": "list", "elements": "int", "default": []},
    "tags": {"type": "list", "elements": "str", "default": []},
    "pools": {"type": "list", "elements": "str", "default": []},
    "nodes": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **FILTERS,
            "config": {"type": "bool", "default": False},
            "parallel": {"type": "int", "default": 4},
            **CONNECTION_ARGUMENTS,
        },
        supports_check_mode=True,
        **CONNECTION_RULES,
    )
    require_libraries(module, *LIBRARIES)
    filters = Filters(**{name: frozenset(module.params[name]) for name in FILTERS})
    try:
        found = read(
            lambda: client_of(module.params),
            filters,
            with_config=module.params["config"],
            parallel=module.params["parallel"],
        )
    except HostingError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
