# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The outermost frame of the batch modules: library check, reconciliation, and the one place that fails a module."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Limits, Provider, reconcile

Desired = TypeVar("Desired")
Actual = TypeVar("Actual")

# matches doc_fragments/batch.py
LIMIT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "max_delete_percent": {"type": "int", "default": 30},
}


def require_libraries(module: AnsibleModule, *libraries: str) -> None:
    """Fail the module, naming the first of *libraries* (import names) that its Python cannot import."""
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            module.fail_json(msg=missing_required_lib(library))


def run_batch(module: AnsibleModule, make: Callable[[], tuple[Provider[Desired, Actual], Sequence[Desired]]]) -> None:
    """Reconcile what *make* returns (provider and desired items) and leave the module with the result."""
    try:
        provider, desired = make()
        result = reconcile(
            provider,
            desired,
            check=module.check_mode,
            limits=Limits(max_delete_percent=module.params["max_delete_percent"]),
        )
    except HostingError as error:
        result = {"failed": True, "changed": False, "msg": str(error), "results": []}
    leave(module, result)


def leave(module: AnsibleModule, result: dict[str, Any]) -> None:
    """Leave the module with *result*; failed items make it fail, with everything that was done in the result."""
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)
