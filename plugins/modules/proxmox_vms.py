#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_vms
short_description: Manage the virtual machines of a Proxmox VE cluster
version_added: "0.1.0"
description:
  - Brings virtual machines to their desired state, all in one call and with few requests. A new one is created from an
    imported image, configured by cloud-init, and started.
  - A virtual machine is ours if it carries the tag C(fediversity-machine-NAME), whatever its VMID, node or present
    name. Others are never touched.
  - Only options that are given are compared, by their meaning and not by their text. MAC addresses and volumes are
    always kept.
  - What cannot change while a virtual machine runs is stored and takes effect at its next stop and start.
    The module reports this and never restarts anything by itself.
  - A user that may not see the virtual machines is refused, because it would create them again at every run.
  - An item that is refused or fails does not keep the others from being done; the module fails at the end.
options:
  vms:
    description:
      - The virtual machines, each listed once.
      - Virtual machines that are not listed are not touched.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the machine, lower-case letters, digits and single hyphens, at most 63 characters.
          - It gives the identifying tag, the name in Proxmox VE, and the guest's host name.
        type: str
        required: true
      state:
        description:
          - V(present) creates and changes; V(absent) stops the virtual machine at once and deletes it with all its
            disks, backup jobs and access rights.
        type: str
        choices: [present, absent]
        default: present
      power:
        description:
          - Whether the virtual machine runs.
          - For V(stopped) the guest is asked to shut down and is stopped after 60 seconds. A virtual machine that does
            not exist is created and not started.
        type: str
        choices: [started, stopped]
        default: started
      vmid:
        description:
          - VMID of the virtual machine. Without it a new one gets the next free id.
          - An id that belongs to a guest without our tag is refused.
        type: int
      node:
        description:
          - Node on which to create the virtual machine. Needed for that only; an existing one is found and left on
            whatever node it is.
        type: str
      cores:
        description: Number of cores.
        type: int
      memory:
        description: Memory in MiB.
        type: int
      disk:
        description: The system disk, C(scsi0).
        type: dict
        suboptions:
          storage:
            description: Storage for the disk and the cloud-init drive. Used at creation only.
            type: str
            required: true
          import_from:
            description:
              - Volume of content type C(import) to copy, for example V(local:import/nixos.qcow2).
              - Used at creation only.
            type: str
            required: true
          size:
            description:
              - Size in GiB. The disk only grows; a size below the present one is refused.
              - Without it the disk has the size of the image.
            type: int
      networks:
        description:
          - All network devices in order, the first one being C(net0). Further ones are removed.
        type: list
        elements: dict
        suboptions:
          bridge:
            description: Bridge or virtual network.
            type: str
            required: true
          model:
            description: Model of the device.
            type: str
            default: virtio
          tag:
            description: VLAN tag.
            type: int
          firewall:
            description: Whether the firewall of Proxmox VE applies to the device.
            type: bool
            default: false
          mac:
            description: MAC address. Without it the present one is kept, and a new device gets one from the server.
            type: str
      cloud_init:
        description: What the guest is told at its first boot.
        type: dict
        suboptions:
          user:
            description: Name of the user who gets the SSH keys.
            type: str
          ssh_keys:
            description: Public SSH keys, one per entry.
            type: list
            elements: str
          addresses:
            description:
              - Addresses of the first network device, at most one for IPv4 and one for IPv6, with prefix length.
              - V(dhcp), V(dhcp6) and V(auto) ask DHCP, DHCPv6 and router advertisements.
            type: list
            elements: str
          gateway:
            description: IPv4 gateway, inside the network of the IPv4 address.
            type: str
          gateway6:
            description: IPv6 gateway, inside the network of the IPv6 address.
            type: str
          nameservers:
            description: Addresses of the name servers.
            type: list
            elements: str
          search_domains:
            description: Domains that complete short names.
            type: list
            elements: str
      tags:
        description:
          - Tags, in lower case. Ours are always added; without this option the others are left alone.
        type: list
        elements: str
      pool:
        description:
          - Resource pool. It must exist. An existing virtual machine is moved to it.
          - A token without the privilege C(Pool.Audit) cannot see the present pool; it is then taken to be right.
        type: str
      description:
        description: Notes on the virtual machine.
        type: str
      onboot:
        description: Whether the virtual machine starts with its node.
        type: bool
      agent:
        description: Whether the guest runs the QEMU guest agent.
        type: bool
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.proxmox
seealso:
  - name: Proxmox VE API viewer
    description: All parameters of the API.
    link: https://pve.proxmox.com/pve-docs/api-viewer/
author:
  - Fediversity hosting contributors (@fediversity)
"""

EXAMPLES = r"""
- name: Create and start a virtual machine from a NixOS image
  fediversity.hosting.proxmox_vms:
    api_host: pve1.example.org
    api_user: fediversity@pve
    api_token_id: hosting
    api_token_secret: "{{ proxmox_token_secret }}"
    vms:
      - name: vm-mastodon
        node: pve1
        cores: 2
        memory: 2048
        disk:
          storage: local
          import_from: local:import/nixos.qcow2
          size: 20
        networks:
          - bridge: vmbr0
        cloud_init:
          user: root
          ssh_keys:
            - "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
          addresses:
            - 10.99.1.10/16
          gateway: 10.99.0.1
          nameservers:
            - 10.99.0.11
        agent: true
        onboot: true
  delegate_to: localhost

- name: Stop one virtual machine and delete another, with the connection from PROXMOX_* variables
  fediversity.hosting.proxmox_vms:
    vms:
      - name: vm-shared
        power: stopped
      - name: vm-old
        state: absent
  delegate_to: localhost
"""

RETURN = r"""
results:
  description: One entry for each virtual machine, sorted by name.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: Name of the machine.
      type: str
      sample: vm-mastodon
    action:
      description: What is to be done or was done.
      type: str
      sample: create
    changed:
      description: Whether the virtual machine was changed, or would be in check mode.
      type: bool
    failed:
      description: Whether the virtual machine was refused or could not be changed.
      type: bool
    msg:
      description: What failed, where, and what to do about it.
      type: str
    vmid:
      description: VMID, if the virtual machine exists.
      type: int
      sample: 100
    node:
      description: Node that has the virtual machine, if it exists.
      type: str
      sample: pve1
    incarnation:
      description: Changes when the virtual machine is made anew, restored, or rolled back to a snapshot.
      type: str
      sample: 6499ede6-6340-4a78-ac1f-8db5b00383bb
    address:
      description: First fixed address that cloud-init gives the guest, empty if there is none.
      type: str
      sample: 10.99.1.10
    status:
      description: V(started) or V(stopped), if the virtual machine exists.
      type: str
      sample: started
    pending:
      description: Keys of the configuration whose change waits for a stop and start.
      type: list
      elements: str
      sample: [memory]
    reboot_required:
      description: Whether the virtual machine runs and changes wait for its stop and start.
      type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fediversity.hosting.plugins.module_utils.module import (
    LIMIT_ARGUMENTS,
    require_libraries,
    run_batch,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.connection import (
    CONNECTION_ARGUMENTS,
    CONNECTION_RULES,
    LIBRARIES,
    client_of,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.desired import desired_machines
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import VmDesired
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.provider import VirtualMachines

DISK = {
    "storage": {"type": "str", "required": True},
    "import_from": {"type": "str", "required": True},
    "size": {"type": "int"},
}
NETWORK = {
    "bridge": {"type": "str", "required": True},
    "model": {"type": "str", "default": "virtio"},
    "tag": {"type": "int"},
    "firewall": {"type": "bool", "default": False},
    "mac": {"type": "str"},
}
CLOUD_INIT = {
    "user": {"type": "str"},
    "ssh_keys": {"type": "list", "elements": "str", "no_log": False},
    "addresses": {"type": "list", "elements": "str"},
    "gateway": {"type": "str"},
    "gateway6": {"type": "str"},
    "nameservers": {"type": "list", "elements": "str"},
    "search_domains": {"type": "list", "elements": "str"},
}
VM = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "power": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    "vmid": {"type": "int"},
    "node": {"type": "str"},
    "cores": {"type": "int"},
    "memory": {"type": "int"},
    "disk": {"type": "dict", "options": DISK},
    "networks": {"type": "list", "elements": "dict", "options": NETWORK},
    "cloud_init": {"type": "dict", "options": CLOUD_INIT},
    "tags": {"type": "list", "elements": "str"},
    "pool": {"type": "str"},
    "description": {"type": "str"},
    "onboot": {"type": "bool"},
    "agent": {"type": "bool"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "vms": {"type": "list", "elements": "dict", "required": True, "options": VM},
            **LIMIT_ARGUMENTS,
            **CONNECTION_ARGUMENTS,
        },
        supports_check_mode=True,
        **CONNECTION_RULES,
    )
    require_libraries(module, *LIBRARIES)

    def make() -> tuple[VirtualMachines, tuple[VmDesired, ...]]:
        desired = desired_machines(module.params["vms"])
        return VirtualMachines(client_of(module.params), module.params["task_timeout"]), desired

    run_batch(module, make)


if __name__ == "__main__":
    main()
