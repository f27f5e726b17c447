# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return the change it would make, without making it.
  diff_mode:
    description: Returns details on what has changed (or would change in check mode), without secrets.
  idempotent:
    description: When run twice in a row with the same arguments, the second run does not change anything.
"""

    FULL = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Can run in check mode and return the change it would make, without making it.
  diff_mode:
    support: full
    description: Returns details on what has changed (or would change in check mode), without secrets.
  idempotent:
    support: full
    description: When run twice in a row with the same arguments, the second run does not change anything.
"""
