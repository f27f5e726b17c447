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
  - Brings virtual machines to their desired state, all in one call and with few requests. A new one is made from an
    imported image or as a clone, configured, and started.
  - A virtual machine is ours if it carries the tag C(fediversity-machine-NAME), whatever its VMID, node or present
    name. Others are never touched.
  - Only options that are given are compared, by their meaning and not by their text. Options that are no longer given
    stay as they are. MAC addresses and volumes are always kept, and so are keys of property strings that no option
    names.
  - What cannot change while a virtual machine runs is stored and takes effect at its next stop and start.
    The module reports this, and restarts the guest only if O(vms[].reboot) asks for it.
  - A run may be killed at any moment; the next one goes on where it ended, without a second virtual machine or a left
    volume.
  - A user that may not see the virtual machines is refused, because it would create them again at every run.
  - What the cluster does not have (node, storage, image, bridge, source) is refused before anything is written.
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
            disks, snapshots, backup jobs, high availability and access rights.
          - A virtual machine with protection is refused, unless O(vms[].protection=false) stands beside V(absent).
            A template is, unless O(vms[].template=true) does.
        type: str
        choices: [present, absent]
        default: present
      power:
        description:
          - Whether the virtual machine runs. V(unmanaged) leaves it as it is and does not start a new one.
          - With O(vms[].ha) in a state that says so, the manager of high availability starts and stops it.
        type: str
        choices: [started, stopped, paused, unmanaged]
        default: started
      shutdown_timeout:
        description: Seconds that the guest has to shut down.
        type: int
        default: 60
      force_stop:
        description: Whether a guest that has not shut down by then is stopped. Otherwise the item fails.
        type: bool
        default: true
      reboot:
        description: Whether the guest is restarted when changes of its configuration wait for that.
        type: str
        choices: [never, if_pending]
        default: never
      template:
        description:
          - V(true) makes the virtual machine a template. O(vms[].power) must be V(stopped) or V(unmanaged).
          - A template does not become a virtual machine again.
          - One with the tag of the machine is neither changed nor deleted without V(true).
        type: bool
      vmid:
        description:
          - VMID of the virtual machine. Without it a new one gets an id of O(vmid_range), or the next free one.
          - An id that belongs to a guest without our tag is refused.
        type: int
      node:
        description:
          - Node on which to create the virtual machine. One that exists is found and left on whatever node it is,
            unless O(vms[].migrate=true).
          - A clone is made on the node of its source if neither this nor O(vms[].placement) is given.
        type: str
      placement:
        description:
          - Chooses the node of a new virtual machine when O(vms[].node) is not given. The one with most free memory
            wins.
        type: dict
        suboptions:
          nodes:
            description: Nodes to choose from. Without it all of them.
            type: list
            elements: str
          apart_from:
            description: Names of machines on whose nodes this one should not be.
            type: list
            elements: str
          strict:
            description: Whether it must not be there, rather than should not.
            type: bool
            default: false
      migrate:
        description:
          - Whether a virtual machine that exists moves to O(vms[].node), or away from where O(vms[].placement) does not
            allow it to be. It keeps running meanwhile if it runs.
          - Needs the privilege C(VM.Migrate).
        type: bool
        default: false
      clone:
        description:
          - The virtual machine or template of which a new one is a copy, instead of C(disk.import_from).
          - Everything else of the item is applied to the copy before its first start.
          - Needs the privilege C(VM.Clone) on the source.
        type: dict
        suboptions:
          vmid:
            description: VMID of the source.
            type: int
            required: true
          full:
            description: Whether all disks are copied. By default only templates are cloned linked, all others in full.
            type: bool
          storage:
            description: Storage for the copied disks, of full clones only.
            type: str
          format:
            description: Format of the copied disks, of full clones only.
            type: str
            choices: [raw, qcow2, vmdk]
          snapshot:
            description: Snapshot of the source that is copied.
            type: str
      cores:
        description: Number of cores of each socket.
        type: int
      sockets:
        description: Number of sockets.
        type: int
      cpu:
        description: CPU model, for example V(host). Its flags are kept.
        type: str
      vcpus:
        description: Number of virtual CPUs that are plugged in at the start.
        type: int
      cpu_limit:
        description: How much CPU time the virtual machine may use, in cores; V(0) is no limit.
        type: float
      cpu_units:
        description: Weight of the virtual machine when CPU time is short.
        type: int
      numa:
        description: Whether the guest sees NUMA nodes.
        type: bool
      memory:
        description: Memory in MiB.
        type: int
      balloon:
        description: Memory in MiB below which ballooning does not go; V(0) turns it off.
        type: int
      shares:
        description: Weight of the virtual machine for automatic ballooning.
        type: int
      machine:
        description:
          - Machine type, for example V(q35). A type without version is equal to all its versions, because the server
            pins one for Windows guests.
        type: str
      bios:
        description: Firmware.
        type: str
        choices: [seabios, ovmf]
      efi_disk:
        description: Volume for EFI variables. It is made if it is not there, and then kept.
        type: dict
        suboptions:
          storage:
            description: Storage for the volume.
            type: str
            required: true
          type:
            description: Size and type of the variable store.
            type: str
            choices: [2m, 4m]
          pre_enrolled_keys:
            description: Whether distribution and Microsoft keys for Secure Boot are in it.
            type: bool
      tpm:
        description: Volume for the state of a TPM. It is made if it is not there, and then kept.
        type: dict
        suboptions:
          storage:
            description: Storage for the volume.
            type: str
            required: true
          version:
            description: Version of the TPM.
            type: str
            choices: [v1.2, v2.0]
      scsi_controller:
        description: Model of the SCSI controller. A new virtual machine has V(virtio-scsi-single).
        type: str
      os_type:
        description: Kind of the guest's operating system. A new virtual machine has V(l26).
        type: str
      vga:
        description: Display type, for example V(std) or V(serial0). Its memory is kept.
        type: str
      boot_order:
        description: Devices to boot from, in order. A new virtual machine boots from C(scsi0).
        type: list
        elements: str
      hotplug:
        description:
          - What may change while the guest runs, some of V(network), V(disk), V(cpu), V(memory), V(usb) and
            V(cloudinit).
        type: list
        elements: str
      protection:
        description: Whether the virtual machine and its disks are protected against deletion.
        type: bool
      startup:
        description: When the virtual machine starts and stops with its node. Keys that are not given are kept.
        type: dict
        suboptions:
          order:
            description: Place in the order.
            type: int
          up:
            description: Seconds before the next one starts.
            type: int
          down:
            description: Seconds before the next one stops.
            type: int
      disk:
        description: The system disk, C(scsi0).
        type: dict
        suboptions:
          storage:
            description:
              - Storage for the disk, and for the cloud-init drive of the system disk.
              - Needed for a new disk. One that exists is moved only with O(vms[].disk.move).
            type: str
          import_from: &disk_import_from
            description:
              - Volume to copy into a new disk, for example V(local:import/nixos.qcow2).
              - Used once.
            type: str
          size: &disk_size
            description:
              - Size in GiB. A disk only grows; a size below the present one, or below that of the image or of the
                clone's source, is refused before anything is written.
              - Without it a copied disk has the size of what it is copied from.
            type: int
          move:
            description:
              - Move a disk that exists to O(vms[].disk.storage), and to O(vms[].disk.format) if that is given.
            type: bool
            default: false
          format: &disk_format
            description: Format of a new or moved disk.
            type: str
            choices: [raw, qcow2, vmdk]
          cache: &disk_cache
            description: Cache mode.
            type: str
            choices: [none, writethrough, writeback, unsafe, directsync]
          discard: &disk_discard
            description: Whether the guest may give back unused blocks. A new system disk has it on.
            type: bool
          ssd: &disk_ssd
            description: Whether the guest sees a solid-state disk.
            type: bool
          iothread: &disk_iothread
            description: Whether the disk has a thread of its own.
            type: bool
          aio: &disk_aio
            description: How the node reads and writes.
            type: str
            choices: [native, threads, io_uring]
          backup: &disk_backup
            description: Whether backups include the disk.
            type: bool
          replicate: &disk_replicate
            description: Whether replication includes the disk.
            type: bool
          readonly: &disk_readonly
            description: Whether the guest may only read.
            type: bool
          options: &disk_options
            description:
              - Further keys of the disk's property string, for example V(iops_rd). Keys that are not named are kept.
            type: dict
      disks:
        description:
          - Further disks. Those that are not listed are left alone.
        type: list
        elements: dict
        suboptions:
          slot:
            description:
              - Where the disk is attached, for example V(scsi1), V(virtio0) or V(sata0).
              - The slot C(ide2) is that of the cloud-init drive and is refused.
            type: str
            required: true
          state:
            description:
              - V(absent) detaches the disk and deletes its volume. Under protection it is refused, unless
                O(vms[].protection=false) stands beside it.
            type: str
            choices: [present, absent]
            default: present
          storage:
            description:
              - Storage for the disk, and for the cloud-init drive of the system disk.
              - Needed for a new disk. One that exists is moved only with O(vms[].disks[].move).
            type: str
          import_from: *disk_import_from
          size: *disk_size
          move:
            description:
              - Move a disk that exists to O(vms[].disks[].storage), and to O(vms[].disks[].format) if that is given.
            type: bool
            default: false
          format: *disk_format
          cache: *disk_cache
          discard: *disk_discard
          ssd: *disk_ssd
          iothread: *disk_iothread
          aio: *disk_aio
          backup: *disk_backup
          replicate: *disk_replicate
          readonly: *disk_readonly
          options: *disk_options
      networks:
        description:
          - All network devices in order, the first one being C(net0). Further ones are removed with their addresses.
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
          trunks:
            description: VLAN tags that the guest may use. An empty list takes the restriction away.
            type: list
            elements: int
          mtu:
            description: MTU; V(1) is that of the bridge.
            type: int
          queues:
            description: Number of packet queues.
            type: int
          rate:
            description: Limit in megabytes per second.
            type: float
          link_down:
            description: Whether the link is down.
            type: bool
          addresses:
            description:
              - Addresses of this device, at most one for IPv4 and one for IPv6, with prefix length.
              - V(dhcp), V(dhcp6) and V(auto) ask DHCP, DHCPv6 and router advertisements.
            type: list
            elements: str
          gateway:
            description: IPv4 gateway, inside the network of the IPv4 address.
            type: str
          gateway6:
            description: IPv6 gateway, inside the network of the IPv6 address.
            type: str
      cloud_init:
        description: What the guest is told at its first boot.
        type: dict
        suboptions:
          user:
            description: Name of the user who gets the SSH keys.
            type: str
          password_hash:
            description:
              - Password of the user as a hash of crypt(5), for example from C(mkpasswd -m sha-512). A password in plain
                text is refused, because the server would keep it so.
              - Sent when the virtual machine is created, and never again.
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
          upgrade:
            description: Whether cloud-init upgrades the guest's packages. A new virtual machine has V(false).
            type: bool
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
      agent_wait:
        description:
          - Seconds to wait for the guest agent after a start. A silent agent never fails the item.
          - With it the results say whether the agent answered, and the addresses that it told.
          - Needs the privilege C(VM.GuestAgent.Audit); without it the agent counts as silent.
        type: int
        default: 0
      options:
        description:
          - Raw keys of the configuration and their text, for example C(hostpci0), C(usb0) or C(args); null or an empty
            text deletes the key. They are compared as property strings, whatever their order, the first entry with or
            without its key.
          - Keys that have an option of their own are refused. C(ide0), C(ide1) and C(ide3) take CD drives only, for
            example V(local:iso/rescue.iso,media=cdrom); C(ide2) is that of the cloud-init drive.
          - Keys that are no longer given stay as they are.
          - Some may be set by the user C(root@pam) with its password only, and by no token, not even one of
            C(root@pam) - C(args), C(affinity), C(amd-sev), C(intel-tdx), C(hookscript), C(parallelN), and devices of
            the node by their address in C(hostpciN), C(usbN) and C(serialN). Mapped devices, for example
            V(mapping=gpu), need the privilege C(Mapping.Use).
        type: dict
      firewall:
        description:
          - Firewall of the virtual machine. It acts on network devices whose own O(vms[].networks[].firewall) is on, if
            the firewall of the cluster is on.
          - Only options that are given are compared and changed.
        type: dict
        suboptions:
          enabled:
            description: Whether the firewall of the virtual machine is on.
            type: bool
          policy_in:
            description: What happens to incoming traffic without a rule. The server's default is V(DROP).
            type: str
            choices: [ACCEPT, REJECT, DROP]
          policy_out:
            description: What happens to outgoing traffic without a rule. The server's default is V(ACCEPT).
            type: str
            choices: [ACCEPT, REJECT, DROP]
          log_level_in:
            description: How incoming traffic that the policy refuses is logged.
            type: str
            choices: [emerg, alert, crit, err, warning, notice, info, debug, nolog]
          log_level_out:
            description: How outgoing traffic that the policy refuses is logged.
            type: str
            choices: [emerg, alert, crit, err, warning, notice, info, debug, nolog]
          dhcp:
            description: Whether DHCP is allowed.
            type: bool
          macfilter:
            description: Whether only the MAC address of the network device may send. The server's default is on.
            type: bool
          ipfilter:
            description: Whether only the addresses of the network device may send.
            type: bool
          rules:
            description:
              - All rules of ours in their order; an empty list removes them.
              - They are known by the comment C(fediversity:) and their name. Rules with another comment, or none, keep
                their content and their order; new rules of ours come before them.
            type: list
            elements: dict
            suboptions:
              name:
                description: Name of the rule, used once; letters, digits, V(.), V(_) and V(-).
                type: str
                required: true
              type:
                description: Direction of the traffic, or V(group) for the rules of a security group of the cluster.
                type: str
                choices: [in, out, group]
                default: in
              action:
                description: V(ACCEPT), V(DROP) or V(REJECT); for the type V(group) the name of the security group.
                type: str
                required: true
              enabled:
                description: Whether the rule acts.
                type: bool
                default: true
              protocol:
                description: Name or number of the protocol. Needed with ports.
                type: str
              source:
                description:
                  - Addresses and networks separated by commas, a range C(FIRST-LAST), an IP set with a leading C(+), or
                    an alias.
                type: str
              destination:
                description: As O(vms[].firewall.rules[].source).
                type: str
              sport:
                description: Source ports separated by commas, ranges as C(FIRST:LAST), or names of services.
                type: str
              dport:
                description: Destination ports, as O(vms[].firewall.rules[].sport).
                type: str
              icmp_type:
                description: Type of ICMP message, with the protocol V(icmp) or V(icmpv6).
                type: str
              macro:
                description: Predefined rules, such as V(HTTPS) or V(SSH).
                type: str
              interface:
                description: Network device of the virtual machine, such as V(net0). Without it the rule is for all.
                type: str
              log:
                description: How traffic that the rule matches is logged.
                type: str
                choices: [emerg, alert, crit, err, warning, notice, info, debug, nolog]
      ha:
        description:
          - High availability of the virtual machine, with a node-affinity rule of its own (Proxmox VE 9 or later).
          - In the states V(started), V(stopped) and V(disabled) the HA manager starts and stops the virtual machine;
            the module sets the state and waits for it. It never starts or stops against the HA manager.
          - Needs the privileges C(Sys.Audit) and C(Sys.Console) on C(/).
        type: dict
        suboptions:
          state:
            description:
              - State of the HA resource. V(absent) takes the virtual machine out of high availability, and V(ignored)
                leaves it there without any effect.
              - Without it, it follows O(vms[].power), V(started) or V(stopped). A state that contradicts O(vms[].power)
                V(stopped) or V(paused) is refused.
            type: str
            choices: [started, stopped, disabled, ignored, absent]
          max_restart:
            description: How often a failed start is tried again on its node.
            type: int
          max_relocate:
            description: How often a failed start is tried on another node.
            type: int
          comment:
            description: Comment of the HA resource, one line.
            type: str
          nodes:
            description:
              - Nodes on which the virtual machine is to run, each with its priority as value; the highest is preferred.
              - They make the node-affinity rule C(fediversity-NAME). An empty dictionary removes it.
            type: dict
          strict:
            description: Whether the virtual machine never runs on other nodes than O(vms[].ha.nodes).
            type: bool
            default: false
      snapshots:
        description:
          - Named snapshots. Those that are not listed are left alone.
          - All volumes must lie where snapshots are possible; on directory storages they must be qcow2.
          - Needs the privilege C(VM.Snapshot).
        type: list
        elements: dict
        suboptions:
          name:
            description: Name of the snapshot, 2 to 40 letters, digits, V(_) and V(-), beginning with a letter.
            type: str
            required: true
          state:
            description: V(absent) deletes the snapshot.
            type: str
            choices: [present, absent]
            default: present
          description:
            description: Description of the snapshot.
            type: str
          vmstate:
            description: Whether the memory of a running virtual machine is saved too, when the snapshot is taken.
            type: bool
            default: false
      safety_snapshot:
        description:
          - V(risky) takes a snapshot before a change of disks, firmware, machine type or raw options. It holds the
            disks and the configuration, not the memory, firewall or high availability.
          - No snapshot is taken where a disk is moved or deleted, the virtual machine migrates or becomes a template,
            because Proxmox VE refuses most of that for what a snapshot holds.
          - If the server refuses the change of a virtual machine that was stopped and has not run since, it is rolled
            back, and volumes that the change made are deleted. In all other cases nothing is undone, so that nothing is
            lost that the guest wrote; the error names the snapshot, for O(vms[].rollback).
          - Needs the privilege C(VM.Snapshot), and C(VM.Snapshot.Rollback) to roll back.
        type: str
        choices: [never, risky]
        default: never
      safety_snapshots_kept:
        description: How many of these snapshots are kept; the oldest go.
        type: int
        default: 2
      rollback:
        description:
          - Snapshot to which the virtual machine returns before anything else is compared. This is an order, which is
            carried out and reported as changed at every run.
          - What the guest wrote since is lost. Needs the privilege C(VM.Snapshot.Rollback), or C(VM.Snapshot).
        type: str
  parallel:
    description: How many virtual machines are read and changed at the same time.
    type: int
    default: 4
  vmid_range:
    description:
      - Ids for new virtual machines, for example V(5000-5999). The lowest one that no visible guest has is used.
      - Without it the server offers the next free id.
    type: str
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.proxmox
seealso:
  - module: fediversity.hosting.proxmox_power
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

# all further examples take the connection from PROXMOX_* variables
- name: Clone a template to the node with most free memory, apart from another machine
  fediversity.hosting.proxmox_vms:
    vmid_range: 5000-5999
    vms:
      - name: vm-peertube
        clone:
          vmid: 9000
          full: true
        placement:
          nodes: [pve1, pve2]
          apart_from: [vm-mastodon]
        cores: 4
        memory: 4096
        disk:
          size: 40
        cloud_init:
          addresses: [10.99.1.11/16]
          gateway: 10.99.0.1
  delegate_to: localhost

- name: Make a template
  fediversity.hosting.proxmox_vms:
    vms:
      - name: nixos-base
        vmid: 9000
        node: pve1
        disk:
          storage: local
          import_from: local:import/nixos.qcow2
        power: stopped
        template: true
  delegate_to: localhost

- name: Add a data disk, let the system disk grow and move, remove another disk
  fediversity.hosting.proxmox_vms:
    vms:
      - name: vm-mastodon
        disk:
          size: 40
          storage: fast
          move: true
        disks:
          - slot: scsi1
            storage: slow
            size: 200
            discard: true
            iothread: true
          - slot: scsi2
            state: absent
  delegate_to: localhost

- name: Change the machine type of a stopped machine, which returns to its snapshot if the server refuses
  fediversity.hosting.proxmox_vms:
    vms:
      - name: vm-mastodon
        power: stopped
        machine: q35
        safety_snapshot: risky
  delegate_to: localhost

- name: Pass a mapped PCI device through, with UEFI firmware, and restart the guest if it needs that
  fediversity.hosting.proxmox_vms:
    vms:
      - name: vm-transcoder
        machine: q35
        bios: ovmf
        efi_disk:
          storage: local
          type: 4m
        options:
          hostpci0: mapping=gpu,pcie=1
        reboot: if_pending
  delegate_to: localhost

- name: Let only SSH and HTTPS in
  fediversity.hosting.proxmox_vms:
    vms:
      - name: vm-mastodon
        networks:
          - bridge: vmbr0
            firewall: true
        firewall:
          enabled: true
          policy_in: DROP
          rules:
            - name: ssh
              action: ACCEPT
              protocol: tcp
              dport: "22"
              source: 10.99.0.0/16
            - name: https
              action: ACCEPT
              protocol: tcp
              dport: "443"
  delegate_to: localhost

- name: Keep a machine running on one of two nodes
  fediversity.hosting.proxmox_vms:
    vms:
      - name: vm-mastodon
        ha:
          state: started
          nodes:
            pve1: 2
            pve2: 1
  delegate_to: localhost

- name: Move a machine to another node while it runs
  fediversity.hosting.proxmox_vms:
    vms:
      - name: vm-mastodon
        node: pve2
        migrate: true
  delegate_to: localhost

- name: Take a snapshot
  fediversity.hosting.proxmox_vms:
    vms:
      - name: vm-mastodon
        snapshots:
          - name: before-upgrade
            description: Before the upgrade of Mastodon
  delegate_to: localhost

- name: Return to it
  fediversity.hosting.proxmox_vms:
    vms:
      - name: vm-mastodon
        rollback: before-upgrade
  delegate_to: localhost

- name: Stop one virtual machine and delete another
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
      description:
        - Changes when the virtual machine is made anew, restored, or rolled back to a snapshot.
        - Empty where the run has not read it, above all for a virtual machine that it has just created.
      type: str
      sample: 6499ede6-6340-4a78-ac1f-8db5b00383bb
    address:
      description: First fixed address that cloud-init gives the guest, empty if there is none.
      type: str
      sample: 10.99.1.10
    status:
      description: V(started), V(stopped) or V(paused), if the virtual machine exists.
      type: str
      sample: started
    template:
      description: Whether it is a template.
      type: bool
    snapshots:
      description: Names of the safety snapshots that this run took.
      type: list
      elements: str
      sample: [fediversity-20261121061500]
    agent:
      description: Whether the guest agent answered, if O(vms[].agent_wait) is given and the virtual machine runs.
      type: bool
    addresses:
      description: Addresses that the guest agent told, without loopback and link-local ones.
      type: list
      elements: str
      sample: [10.99.1.10]
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
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.arguments import VM
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.connection import (
    CONNECTION_ARGUMENTS,
    CONNECTION_RULES,
    LIBRARIES,
    client_of,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.desired import desired_machines
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import VmDesired
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.provider import VirtualMachines
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.vmids import parse_range


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "vms": {"type": "list", "elements": "dict", "required": True, "options": VM},
            "parallel": {"type": "int", "default": 4},
            "vmid_range": {"type": "str"},
            **LIMIT_ARGUMENTS,
            **CONNECTION_ARGUMENTS,
        },
        supports_check_mode=True,
        **CONNECTION_RULES,
    )
    require_libraries(module, *LIBRARIES)

    def make() -> tuple[VirtualMachines, tuple[VmDesired, ...]]:
        desired = desired_machines(module.params["vms"])
        provider = VirtualMachines(
            client_of(module.params),
            module.params["task_timeout"],
            parallel=module.params["parallel"],
            another=lambda: client_of(module.params),
            vmid_range=parse_range(module.params["vmid_range"]),
        )
        return provider, desired

    run_batch(module, make)


if __name__ == "__main__":
    main()
