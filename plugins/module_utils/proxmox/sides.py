# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All parts of a virtual machine, in the order in which they are applied."""

from __future__ import annotations

from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.firewall import FIREWALL
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.ha import HA
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Part
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.snapshots import SNAPSHOTS

PARTS: tuple[Part[Any, Any], ...] = (FIREWALL, HA, SNAPSHOTS)
