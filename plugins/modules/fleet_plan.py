# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_plan
short_description: Plan the fleet once, from the rows of the operator database
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Reads the operator database and the catalogue once and says what every backend should hold, as the items of the batch
    modules, and which document Nix is to evaluate.
  - Asks no backend and writes nothing but the file C(fleet.json) in O(state_dir).
  - Secrets appear only as references, dictionaries with the one key C(secret), which the lookup
    P(fediversity.hosting.secret#lookup) resolves where they are used.
  - Runs once in the controller process, whatever the number of hosts.
requirements: [SQLAlchemy, alembic, jsonschema]
options:
  environment:
    description: Plan only this environment.
    type: str
  machines:
    description:
      - Plan only these machines; all of them by default. Names that the operator database does not know are left out.
    type: list
    elements: str
  authorized_keys:
    description: Public SSH keys that may log in as root on every machine.
    type: list
    elements: str
    default: []
  authorized_keys_file:
    description:
      - A file with further public SSH keys, one per line.
      - Falls back to the environment variable E(FEDIVERSITY_AUTHORIZED_KEYS_FILE).
    type: path
  state_dir:
    description:
      - Folder of the controller for what a run needs beside the database, made if absent with mode 0700.
      - Falls back to the environment variable E(FEDIVERSITY_STATE_DIR).
    type: path
    required: true
seealso:
  - module: fediversity.hosting.fleet_select
  - module: fediversity.hosting.nix_build
extends_documentation_fragment:
  - fediversity.hosting.operator_db.database
  - fediversity.hosting.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing; what it returns is the plan.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Plan the machines of this run
  fediversity.hosting.fleet_plan:
    machines: "{{ ansible_play_hosts_all }}"
    authorized_keys_file: /etc/fediversity/authorized_keys
    state_dir: /var/lib/fediversity
  register: fleet

- name: Make the virtual machines
  fediversity.hosting.proxmox_vms:
    vms: "{{ fleet.vms }}"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
vms:
  description: Items for M(fediversity.hosting.proxmox_vms).
  returned: success
  type: list
  elements: dict
keys:
  description: Keys for M(fediversity.hosting.garage_buckets); their secrets are references.
  returned: success
  type: list
  elements: dict
buckets:
  description: Buckets for M(fediversity.hosting.garage_buckets).
  returned: success
  type: list
  elements: dict
databases:
  description: Items for M(fediversity.hosting.postgresql_databases); their passwords are references.
  returned: success
  type: list
  elements: dict
zones:
  description: Items for M(fediversity.hosting.dns_records).
  returned: success
  type: list
  elements: dict
secrets:
  description: Items for M(fediversity.hosting.operator_secrets).
  returned: success
  type: list
  elements: dict
secret_files:
  description: Machine to files for M(fediversity.hosting.secret_files); their contents are references.
  returned: success
  type: dict
health:
  description: Machine to health checks for M(fediversity.hosting.nixos_rebuild).
  returned: success
  type: dict
needs:
  description: Machine to the items of the batches that it cannot do without (kind and name).
  returned: success
  type: dict
machines:
  description: The machines that have at least one enabled application instance.
  returned: success
  type: list
  elements: str
committed:
  description: Machine to the system that it committed last, as the operator database recorded it.
  returned: success
  type: dict
problems:
  description: Deployments that could not be planned, each with operator, deployment, machine and msg.
  returned: success
  type: list
  elements: dict
fleet_file:
  description: Path of the document that C(nix/fleet.nix) reads.
  returned: success
  type: str
"""
