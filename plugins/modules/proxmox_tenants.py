#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_tenants
short_description: Give each operator a pool, a user and an API token of its own on a Proxmox VE cluster
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Makes a pool, a user, an API token and access rights for each operator. With its token an operator manages the virtual
    machines in its pool, with disks, network devices and cloud-init, and sees nothing of other operators.
  - The rights are four roles, C(FediversityVms) on the pool, C(FediversityDisks) on the storages, C(FediversityNetworks) on the
    networks and C(FediversityTemplates) on the templates. They are granted to the user and to the token, because a token
    with separate privileges has only those that both have. Entries of other users and tokens are never touched.
  - The secret of a token is told by the server once. It goes straight into the operator database or into a file under
    Ansible Vault, and into no result, log or difference. At every run the stored secret is tried; if it is missing or
    refused, for example after a crash, the token is made anew.
  - Pool and user are ours by their comment C(fediversity:operator:NAME). Others of the same name are refused.
  - Proxmox VE has no quotas, neither for pools nor for users.
  - Runs once in the controller process, whatever the number of hosts.
  - The user of O(api_user) needs C(Permissions.Modify), C(Sys.Modify), C(User.Modify), C(Realm.AllocateUser) and
    C(Pool.Allocate), which the role C(Administrator) on C(/) holds. It can give itself every right, so keep its token apart.
  - The roles need Proxmox VE 9 or newer.
requirements: [SQLAlchemy, cryptography, psycopg (for PostgreSQL)]
options:
  tenants:
    description: The operators, each listed once. Others are not touched.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the operator, lower-case letters, digits and single hyphens, at most 32 characters.
        type: str
        required: true
      state:
        description:
          - V(absent) removes pool, user, token, rights and the stored secret. It is refused as long as the pool has members.
        type: str
        choices: [present, absent]
        default: present
      pool:
        description: Name of the pool. Without it the name of the operator.
        type: str
      user:
        description: User with realm. Without it the name of the operator in the realm C(pve). It gets no password.
        type: str
      token:
        description: Name of the API token.
        type: str
        default: fediversity
      storages:
        description: Storages for disks and images, by name.
        type: list
        elements: str
        default: []
      networks:
        description:
          - Bridges, such as V(vmbr0), networks of a zone, such as V(zone1/net1), or a single VLAN of a bridge, such as
            V(localnetwork/vmbr0/100).
        type: list
        elements: str
        default: []
      templates:
        description: VMIDs of templates that may be cloned.
        type: list
        elements: int
        default: []
      rotate:
        description: Make the token anew, at every run. The old secret ends at once.
        type: bool
        default: false
  more_privileges:
    description:
      - Privileges on the pools beyond those that M(fediversity.hosting.proxmox_vms) needs for creation, change, power and
        deletion, for example V(VM.Snapshot), V(VM.Snapshot.Rollback), V(VM.Migrate), V(VM.Console) or V(VM.Backup).
      - The role is one for all tenants, so use the same list in every run.
    type: list
    elements: str
    default: []
  token_directory:
    description:
      - Directory on the controller for files C(<name>.yml) with C(api_user), C(api_token_id) and C(api_token_secret),
        encrypted with Ansible Vault and readable by their owner only.
      - Without it the secret is stored in the operator database, as C(<name>/proxmox-token).
    type: path
  vault_password_file:
    description:
      - File with the password for O(token_directory), or a program that prints it.
      - Without it the first vault secret that Ansible was started with encrypts, and all of them decrypt.
    type: path
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.proxmox
  - fediversity.hosting.operator_db.database
  - fediversity.hosting.operator_db.secret_key
attributes:
  idempotent:
    details: Not with O(tenants[].rotate), which makes a new token every time.
seealso:
  - module: fediversity.hosting.proxmox_vms
  - plugin: fediversity.hosting.secret
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Give two operators their place, with the secrets in the operator database
  fediversity.hosting.proxmox_tenants:
    api_host: pve1.example.org
    api_user: provisioner@pve
    api_token_id: tenants
    api_token_secret: "{{ proxmox_administrator_secret }}"
    tenants:
      - name: alice
        storages: [local]
        networks: [vmbr0]
      - name: bob
        storages: [local]
        networks: [vmbr0]
        templates: [9000]

- name: Use the token of one of them
  fediversity.hosting.proxmox_vms:
    api_user: alice@pve
    api_token_id: fediversity
    api_token_secret: "{{ lookup('fediversity.hosting.secret', 'alice/proxmox-token') }}"
    vms:
      - name: vm-mastodon
        pool: alice
        node: pve1
        disk:
          storage: local
          import_from: local:import/nixos.qcow2
  delegate_to: localhost

- name: Make a new token for one of them, kept in a file under Ansible Vault
  fediversity.hosting.proxmox_tenants:
    tenants:
      - name: alice
        storages: [local]
        networks: [vmbr0]
        rotate: true
    token_directory: "{{ playbook_dir }}/tokens"
"""

RETURN = r"""
results:
  description: One entry for each operator, sorted by name.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: Name of the operator.
      type: str
      sample: alice
    action:
      description: What is to be done or was done.
      type: str
      sample: create
    changed:
      description: Whether anything was changed, or would be in check mode.
      type: bool
    failed:
      description: Whether the operator was refused or could not be changed.
      type: bool
    msg:
      description: What failed, where, and what to do about it.
      type: str
    pool:
      description: The pool, if the tenant exists.
      type: str
      sample: alice
    user:
      description: The user with realm, if the tenant exists.
      type: str
      sample: alice@pve
    token:
      description: Name of the token, if the tenant exists.
      type: str
      sample: fediversity
    secret_ref:
      description: Reference of the secret in the operator database, if it is kept there.
      type: str
      sample: alice/proxmox-token
    secret_file:
      description: File that holds the secret, if it is kept in O(token_directory).
      type: str
      sample: /srv/hosting/tokens/alice.yml
"""
