# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""octoDNS' configuration: where the records are, where they go, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

try:
    import yaml
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import ManagedZone, registry_text
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput

SOURCE = "records"
CLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+\Z")
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")
# names of settings that hold secrets, and the ones among those that do not
SECRET = re.compile(r"secret|token|pass|key|credential|private|auth", re.IGNORECASE)
NO_SECRET = re.compile(r"_(name|algorithm|file|path|id|type|url|host)\Z", re.IGNORECASE)
# octoDNS takes what follows a second slash for a default value
REFERENCE = re.compile(r"env/[A-Za-z_][A-Za-z0-9_]*\Z")
# of the ownership records, as dns_records makes them
OWNERSHIP_TTL = 3600


@dataclass(frozen=True)
class Target:
    """The provider that octoDNS writes to.

    :param settings: its arguments; secrets in them are references to the environment.
    """

    name: str
    provider_class: str
    settings: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Limits:
    """When octoDNS refuses to go on, in percent of the records of a zone."""

    update_percent: int
    delete_percent: int


def target_from(option: Mapping[str, Any]) -> Target:
    """The module option ``provider``.

    :raises InvalidInput: a name is malformed, or a setting holds a secret itself.
    """
    if not IDENTIFIER.match(option["name"]) or option["name"] == SOURCE:
        raise InvalidInput(
            f"{option['name']!r} cannot be the provider's name",
            where="provider, name",
            hint=f"Use letters, digits, hyphens and underscores, and not {SOURCE!r}",
        )
    if not CLASS.match(option["class"]):
        raise InvalidInput(
            f"{option['class']!r} is no name of a Python class",
            where="provider, class",
            hint="Write it as octodns_bind.Rfc2136Provider",
        )
    if "class" in option["settings"]:
        raise InvalidInput("class is no setting", where="provider, settings", hint="Use the option class")
    check_secrets(option["settings"], "provider, settings")
    return Target(option["name"], option["class"], option["settings"])


def check_secrets(settings: Any, where: str) -> None:
    """Refuse secrets that are not references to the environment.

    :raises InvalidInput: a setting whose name says that it is secret has another value; the value is not shown.
    """
    for error, _value in clear_secrets(settings, where):
        raise error


def clear_secrets(settings: Any, where: str) -> Iterator[tuple[InvalidInput, str]]:
    """Settings that must not be there, each with the value that nobody may see."""
    items = settings.items() if isinstance(settings, Mapping) else enumerate(settings)
    for key, value in items:
        place = f"{where}, {key}"
        if isinstance(value, Mapping | list):
            yield from clear_secrets(value, place)
        elif SECRET.search(str(key)) and not NO_SECRET.search(str(key)) and not _is_reference(value):
            error = InvalidInput(
                "the setting looks like a secret and is no reference to the environment",
                where=place,
                hint="Write env/NAME, and set that variable where octoDNS runs",
            )
            yield error, str(value)
        elif isinstance(value, str) and value.startswith("env/") and not _is_reference(value):
            error = InvalidInput(
                "the reference to the environment is malformed",
                where=place,
                hint="Write env/NAME, without a default value",
            )
            yield error, value


def config_document(zones: Sequence[ManagedZone], target: Target, directory: str, limits: Limits, workers: int) -> str:
    """octoDNS' config.yaml for zone files in *directory*."""
    marks = sorted({zone.mark for zone in zones})
    config = {
        "manager": {"max_workers": workers},
        "processors": {
            _processor(mark): {
                "class": "octodns.processor.ownership.OwnershipProcessor",
                "txt_ttl": OWNERSHIP_TTL,
                "txt_value": registry_text(mark),
            }
            for mark in marks
        },
        "providers": {
            SOURCE: {
                "class": "octodns.provider.yaml.YamlProvider",
                "directory": directory,
                "escaped_semicolons": True,
            },
            target.name: {**target.settings, "class": target.provider_class},
        },
        "zones": {
            zone.name.to_text(): {
                "sources": [SOURCE],
                "targets": [target.name],
                "processors": [_processor(zone.mark)],
                "update_pcent_threshold": limits.update_percent / 100,
                "delete_pcent_threshold": limits.delete_percent / 100,
            }
            for zone in zones
        },
    }
    # octoDNS refuses a section that is there and empty
    filled = {key: value for key, value in config.items() if value or key in ("providers", "zones")}
    return yaml.safe_dump(filled, sort_keys=True, allow_unicode=True)


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and REFERENCE.match(value) is not None


def _processor(mark: str) -> str:
    return f"ownership:{mark}"
