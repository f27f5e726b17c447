#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nix_build
short_description: Build the NixOS systems of a fleet
version_added: "0.1.0"
description:
  - Evaluates the systems of all machines of a fleet file in one process
    and builds those that differ from the known ones in one go.
  - A machine whose configuration cannot be evaluated or built fails with Nix' own error;
    the systems of the others are built and returned.
  - Runs where Nix is installed, usually on the controller with C(delegate_to=localhost) and C(run_once=true).
  - The settings of Nix (substituters, builders, sandbox) are those of the environment.
author:
  - Fediversity hosting contributors (@fediversity)
requirements:
  - Nix 2.3 or newer on the host that runs the module
extends_documentation_fragment:
  - fediversity.hosting.attributes
attributes:
  check_mode:
    support: full
    details:
      - Everything is evaluated and nothing is built.
  diff_mode:
    support: none
    details:
      - Systems are store paths; what differs between two of them is reported by the switch.
  idempotent:
    support: full
options:
  fleet:
    description: Path of the fleet file (JSON) that describes the machines.
    type: path
    required: true
  expression:
    description: Path of the collection's C(nix/fleet.nix).
    type: path
    required: true
  nixpkgs:
    description:
      - Path of nixpkgs.
      - If it is not set, the value of the environment variable E(FEDIVERSITY_NIXPKGS) is used.
    type: path
    required: true
  extra_modules:
    description: Paths of NixOS modules that every machine gets in addition.
    type: list
    elements: path
    default: []
  machines:
    description:
      - Names of the machines to evaluate.
      - Without it, all machines of the fleet file.
    type: list
    elements: str
  known:
    description:
      - The system that each machine is known to run, by machine name.
      - A machine that is to run this very system is V(unchanged); nothing is built for it.
    type: dict
    default: {}
  gc_roots:
    description:
      - Directory with one link per machine that keeps its system from the garbage collector.
      - It is made if it does not exist.
    type: path
    required: true
  nix_options:
    description: Settings of Nix for this build (C(--option)), by name.
    type: dict
    default: {}
seealso:
  - module: fediversity.hosting.nixos_rebuild
notes:
  - The result is changed when something was built that was not in the store before; building does not change a machine.
"""

EXAMPLES = r"""
- name: Build the systems of all machines
  fediversity.hosting.nix_build:
    fleet: /var/lib/fediversity/fleet.json
    expression: /usr/share/ansible/collections/ansible_collections/fediversity/hosting/nix/fleet.nix
    nixpkgs: /srv/nixpkgs
    gc_roots: /var/lib/fediversity/gc-roots
  delegate_to: localhost
  run_once: true
  register: fediversity_build

- name: Show what differs from the running systems, without building
  fediversity.hosting.nix_build:
    fleet: /var/lib/fediversity/fleet.json
    expression: /usr/share/ansible/collections/ansible_collections/fediversity/hosting/nix/fleet.nix
    nixpkgs: /srv/nixpkgs
    gc_roots: /var/lib/fediversity/gc-roots
    machines: [vm-mastodon]
    known:
      vm-mastodon: /nix/store/00000000000000000000000000000000-nixos-system-vm-mastodon
  delegate_to: localhost
  run_once: true
  check_mode: true
"""

RETURN = r"""
systems:
  description: Store path of the system of every machine that could be evaluated (and, outside check mode, built).
  returned: always
  type: dict
  sample:
    vm-mastodon: /nix/store/00000000000000000000000000000000-nixos-system-vm-mastodon
changed_machines:
  description: Names of the machines whose system differs from the known one and is there to be copied.
  returned: always
  type: list
  elements: str
  sample: [vm-mastodon]
results:
  description: One entry per machine.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the machine.
      type: str
    action:
      description: V(build) if the system differs from the known one, V(unchanged) if not.
      type: str
    changed:
      description: Whether its system was not in the store before.
      type: bool
    failed:
      description: Whether it could not be evaluated or built.
      type: bool
    msg:
      description: Nix' error; empty when there is none.
      type: str
    system:
      description: Store path of the system; empty when it could not be evaluated or built.
      type: str
msg:
  description: One line for a person.
  returned: always
  type: str
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    HostingError,
    InvalidInput,
    MissingCommand,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.module import leave
from ansible_collections.fediversity.hosting.plugins.module_utils.nixos.build import (
    Fleet,
    build,
    evaluate,
    predict,
    result,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.nixos.nix import Nix


def find_nix(module: AnsibleModule) -> Nix:
    """The Nix of this host.

    :raises MissingCommand: it is not installed.
    """
    commands = {name: module.get_bin_path(name) for name in ("nix-store", "nix-instantiate")}
    for name, path in commands.items():
        if path is None:
            raise MissingCommand(
                f"{name} was not found on PATH",
                hint="Install Nix where this module runs: the Debian package nix-bin, or see https://nixos.org/download",
            )
    return Nix(
        run=lambda command: module.run_command(list(command)),
        store=commands["nix-store"],
        instantiate=commands["nix-instantiate"],
        options={name: str(value) for name, value in module.params["nix_options"].items()},
    )


def all_machines(path: str) -> list[str]:
    """Names of the machines in the fleet file *path*.

    :raises InvalidInput: it cannot be read or is no fleet file.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return sorted(json.load(file)["machines"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"the fleet file cannot be read: {error!r}", where=path) from error


def check_paths(params: dict) -> None:
    """Refuse paths that do not exist before Nix is asked.

    :raises InvalidInput: one of them does not exist.
    """
    eval_config = os.path.join(params["nixpkgs"], "nixos/lib/eval-config.nix")
    for option, path in [("expression", params["expression"]), ("nixpkgs", eval_config)] + [
        ("extra_modules", path) for path in params["extra_modules"]
    ]:
        if not os.path.exists(path):
            raise InvalidInput(f"{path} does not exist", where=f"option {option}")


def run(module: AnsibleModule) -> dict:
    """Evaluate and build; the result of the module.

    :raises HostingError: nothing could be evaluated for a reason that is no machine's.
    """
    params = module.params
    nix = find_nix(module)
    check_paths(params)
    existing = all_machines(params["fleet"])
    machines = params["machines"] if params["machines"] is not None else existing
    unknown = sorted(set(machines).difference(existing))
    if unknown:
        raise InvalidInput(f"the fleet file has no machine {', '.join(unknown)}", where=params["fleet"])
    fleet = Fleet(params["expression"], params["fleet"], params["nixpkgs"], tuple(params["extra_modules"]))
    evaluation = evaluate(nix, fleet, machines, write=not module.check_mode)
    known = params["known"]
    if module.check_mode:
        built = predict(nix, evaluation, known)
    else:
        built, evaluation = build(nix, evaluation, known, params["gc_roots"])
    return result(machines, evaluation, built, known, check=module.check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fleet": {"type": "path", "required": True},
            "expression": {"type": "path", "required": True},
            "nixpkgs": {"type": "path", "required": True, "fallback": (env_fallback, ["FEDIVERSITY_NIXPKGS"])},
            "extra_modules": {"type": "list", "elements": "path", "default": []},
            "machines": {"type": "list", "elements": "str"},
            "known": {"type": "dict", "default": {}},
            "gc_roots": {"type": "path", "required": True},
            "nix_options": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    try:
        outcome = run(module)
    except HostingError as error:
        module.fail_json(msg=str(error))
    leave(module, outcome)


if __name__ == "__main__":
    main()
