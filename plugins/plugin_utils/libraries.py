# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Python packages of requirements.txt on the controller.

plugin_utils imports them under a guard, since ansible-test imports every file without them; plugins ask for them here.
"""

from __future__ import annotations

from importlib import import_module

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import MissingLibrary

PACKAGES = {"sqlalchemy": "SQLAlchemy"}


def require(*libraries: str) -> None:
    """Check that the Python of this process can import *libraries* (import names).

    :raises MissingLibrary: it cannot; the message names the first one.
    """
    for library in libraries:
        try:
            import_module(library)
        except ImportError as error:
            raise MissingLibrary(PACKAGES.get(library, library)) from error
