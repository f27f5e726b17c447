# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # matches LIMIT_ARGUMENTS in module_utils/module.py
    DOCUMENTATION = r"""
options:
  max_delete_percent:
    description:
      - Refuse the whole plan, before anything is written, if it deletes more than this share of the existing items.
      - Not checked while there are fewer than 10 existing items.
    type: int
    default: 30
"""
