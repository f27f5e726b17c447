# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: forget_host_key
short_description: Forget the SSH host key of a machine that was made anew
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Removes the host keys of the task's host from the files of known hosts that C(ssh) uses with the options of Ansible's
    connection, so that the next connection may learn the new key.
  - Use it only for a machine that was just made anew by something trusted. The machine itself is not asked.
  - Runs in the controller process.
requirements: [OpenSSH client]
options: {}
seealso:
  - module: ansible.builtin.known_hosts
extends_documentation_fragment:
  - fediversity.hosting.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: Host keys are of no use to a reader.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Forget the host key of the virtual machine that was there before
  fediversity.hosting.forget_host_key:
"""

RETURN = r"""
files:
  description: Files of known hosts that held a key of the machine.
  returned: success
  type: list
  elements: str
  sample: [/home/provider/.ssh/known_hosts]
"""
