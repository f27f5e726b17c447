# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_files
short_description: Keep root-only files with secret contents on a machine
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Compares the files with what the machine has, in one SSH session, and sends those that are missing or differ in a second one.
  - Contents travel on standard input only. They are never an argument of a process, and never part of a result, a diff or a log;
    the comparison uses digests with a random nonce, so that a log cannot be searched for guessed contents either.
  - A file is complete and on the disk before it gets its name. Missing directories are made for their owner only (mode 0700).
  - The module is an action plugin. It needs no Python on the machine.
requirements:
  - "on the machine: a POSIX shell, coreutils and findutils"
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path.
        type: str
        required: true
      content:
        description: The content, exactly; no line end is added.
        type: str
        required: true
      owner:
        description: User who owns the file, by name or number.
        type: str
        default: root
      group:
        description: Group of the file, by name or number.
        type: str
        default: root
      mode:
        description: Permissions, three or four octal digits in quotes.
        type: str
        default: "0400"
  directory:
    description: Directory below which all files must be.
    type: str
  purge:
    description: Remove every file below O(directory) that is not in O(files), and directories that become empty.
    type: bool
    default: false
  connect_timeout:
    description: Seconds to wait for a machine that does not answer yet because it is still booting. V(0) tries once.
    type: int
    default: 120
seealso:
  - module: fediversity.hosting.nixos_rebuild
extends_documentation_fragment:
  - fediversity.hosting.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Paths and the names of what differs, never contents.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Deliver the secrets of this machine, and nothing else in their directory
  fediversity.hosting.secret_files:
    directory: /var/lib/fediversity/secrets
    purge: true
    files:
      - path: /var/lib/fediversity/secrets/alice_social_mastodon/database-password
        content: "{{ mastodon_database_password }}"
  register: secrets

- name: Say which files are new
  ansible.builtin.debug:
    msg: "{{ secrets.results | selectattr('changed') | map(attribute='name') | list }}"
"""

RETURN = r"""
results:
  description: One entry per wanted file and per removed file.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Path of the file.
      type: str
    action:
      description: V(created), V(updated), V(unchanged) or V(removed).
      type: str
    changed:
      description: Whether the file was (in check mode, would be) written or removed.
      type: bool
    differs:
      description: What differed, among V(content), V(owner), V(group) and V(mode).
      type: list
      elements: str
  sample:
    - name: /var/lib/fediversity/secrets/alice_social_mastodon/database-password
      action: updated
      changed: true
      differs: [content]
"""
