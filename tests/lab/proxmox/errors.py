# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a call may answer instead of data (shared/reference/proxmox-api.md, "Response")."""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """A refused call: `status` and `message` are the status line, `errors` maps a parameter to its text."""

    def __init__(self, message: str, *, status: int = 500, errors: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.errors = dict(errors or {})


def invalid(errors: Mapping[str, str]) -> ApiError:
    """400: what is wrong with which parameter."""
    return ApiError("Parameter verification failed.", status=400, errors=errors)


def denied(reason: str = "") -> ApiError:
    """403: `reason` names the path and the privilege, or the object, that was missing."""
    return ApiError(f"Permission check failed{f' ({reason})' if reason else ''}", status=403)


def unauthorized(reason: str) -> ApiError:
    """401: the transport answers it late and without a body."""
    return ApiError(reason, status=401)
