# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Zones of a server: which are wanted, whose they are, and which may not be made."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

try:
    import dns.exception
    import dns.name
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput, NotOwned
from ansible_collections.fediversity.hosting.plugins.module_utils.names import check_slug
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Change

MARK_PREFIX = "fediversity.hosting:"
OPERATOR_PREFIX = "operator="
# RFC 9432 sections 4.1 and 4.4: the members of a catalog, and the private property that is our mark of one
MEMBERS = "zones"
MARK_LABELS = ("fediversity", "ext")
MARK = re.compile(r"[!#-\[\]-~]{1,200}\Z")
# what may be written into a configuration and a file name: no slash, no quote, no blank
LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\Z")
IDENTIFIER = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,253}[A-Za-z0-9_.])?\Z")
# RFC 2181 section 8
TTL_MAX = 2**31 - 1
# characters of a zone's name that leave room for what its files are called beside it
NAME_MAX = 200
LISTS_OF_IDENTIFIERS = ("acl", "notify", "transfer_keys", "update_keys")
IDENTIFIERS = ("group", "template", "dnssec_policy")


@dataclass(frozen=True)
class Holder:
    """Whose a zone is: the estate's owner mark, ``None`` for others' zones; the operator, ``None`` for the estate."""

    owner: str | None
    operator: str | None = None

    def text(self) -> str:
        return f"{MARK_PREFIX}{self.owner}" + (f" {OPERATOR_PREFIX}{self.operator}" if self.operator else "")


@dataclass(frozen=True)
class Settings:
    """How the server keeps a zone: names of things that its configuration defines elsewhere."""

    template: str | None = None
    acl: tuple[str, ...] = ()
    notify: tuple[str, ...] = ()
    dnssec_policy: str | None = None
    transfer_keys: tuple[str, ...] = ()
    update_keys: tuple[str, ...] = ()
    catalog_zone: str | None = None


@dataclass(frozen=True)
class FirstContent:
    """What the file of a new zone says; *addresses* are those of name servers inside the zone."""

    nameservers: tuple[str, ...] = ()
    addresses: tuple[tuple[str, tuple[str, ...]], ...] = ()
    hostmaster: str = ""
    ttl: int = 3600


@dataclass(frozen=True)
class WantedZone:
    """One item of the option ``zones``; *name* has A-labels and no final dot."""

    name: str
    zone: dns.name.Name
    holder: Holder
    group: str | None = None
    settings: Settings = Settings()
    first: FirstContent = FirstContent()
    state: Literal["present", "absent"] = "present"

    def shown(self) -> dict[str, Any]:
        return shown(self.holder, self.group, self.settings)


@dataclass(frozen=True)
class MalformedZone:
    """An item of the option ``zones`` that is no zone.

    :param unclear: whether *name* is no zone's name either, so that nobody knows which zone was meant.
    """

    name: str
    error: HostingError
    unclear: bool = False


@dataclass(frozen=True)
class ActualZone:
    """A zone that the catalog or the include file has.

    :param identifier: the label of a catalog's member (RFC 9432 section 4.1), empty elsewhere.
    :param problem: why it cannot be managed.
    """

    name: str
    zone: dns.name.Name
    holder: Holder
    group: str | None = None
    settings: Settings = Settings()
    identifier: str = ""
    problem: HostingError | None = None

    def shown(self) -> dict[str, Any]:
        return shown(self.holder, self.group, self.settings)


Wanted: TypeAlias = "WantedZone | MalformedZone"
ZoneChange: TypeAlias = Change[Wanted, ActualZone]


def shown(holder: Holder, group: str | None, settings: Settings) -> dict[str, Any]:
    """What diff mode shows of a zone; only what is set."""
    values = {"mark": holder.text(), "group": group, **settings_data(settings)}
    return {key: value for key, value in values.items() if value}


def settings_data(settings: Settings) -> dict[str, Any]:
    """The settings that are set, as JSON values."""
    values = {key: getattr(settings, key) for key in Settings.__dataclass_fields__}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items() if value}


def settings_from(data: Mapping[str, Any]) -> Settings:
    """The settings of JSON values or module options; unknown keys have no meaning."""
    known: dict[str, Any] = {key: data[key] for key in Settings.__dataclass_fields__ if data.get(key)}
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    return Settings(**values)


def holder_from(text: str) -> Holder:
    """Whose mark *text* is; any other text is nobody's of ours."""
    owner, _blank, operator = text.removeprefix(MARK_PREFIX).partition(f" {OPERATOR_PREFIX}")
    if not text.startswith(MARK_PREFIX) or not MARK.match(owner):
        return Holder(None)
    return Holder(owner, operator or None)


def check_owner(owner: str) -> str:
    """Return *owner* if it can be a mark.

    :raises InvalidInput: it cannot.
    """
    if not MARK.match(owner):
        raise InvalidInput("the owner mark is malformed", where="owner", hint="Use 1 to 200 printable ASCII characters")
    return owner


def from_options(options: Sequence[Mapping[str, Any]], owner: str) -> list[Wanted]:
    """The module option ``zones``."""
    return [_item(option, owner) for option in options]


def zone_name(text: str, where: str) -> dns.name.Name:
    """The zone of that name, in lower case, letters beyond ASCII as A-labels (IDNA 2008).

    :raises InvalidInput: it is none, or has characters that do not belong into configurations and file names.
    """
    try:
        name = dns.name.from_text(text).canonicalize()
    except dns.exception.DNSException as error:
        raise InvalidInput(
            f"{text!r} is no domain name: {error}",
            where=where,
            hint="Labels have 1 to 63 bytes, the whole name at most 255 (RFC 1035, 2.3.4)",
        ) from None
    labels = [label.decode("latin-1") for label in name.labels[:-1]]
    if not labels or not all(LABEL.match(label) for label in labels):
        raise InvalidInput(
            f"{text!r} cannot be the name of a zone",
            where=where,
            hint="Use letters, digits, hyphens and underscores, and dots between the labels",
        )
    return name


def name_text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)


def refusals(
    wanted: Sequence[Wanted],
    actual: Mapping[str, ActualZone],
    going: Collection[str],
    allowed: Collection[dns.name.Name],
) -> dict[str, HostingError]:
    """The items that cannot be made whatever the backend, by name.

    :param going: actual zones that this run removes.
    :param allowed: zones of others below which ours may be.
    """
    listed = Counter(item.name for item in wanted)
    present = [item for item in wanted if isinstance(item, WantedZone) and item.state == "present"]
    holders = {found.zone: found.holder for name, found in actual.items() if name not in going}
    foreign = {zone for zone, holder in holders.items() if holder.owner is None}
    holders |= {item.zone: item.holder for item in present if item.zone not in foreign}
    errors: dict[str, HostingError] = {}
    for item in wanted:
        try:
            if isinstance(item, MalformedZone):
                raise item.error
            if listed[item.name] > 1:
                raise InvalidInput("the zone is listed twice", hint="Keep one entry")
            found = actual.get(item.name)
            if found is not None and found.problem is not None:
                raise found.problem
            if found is not None and found.holder.owner != item.holder.owner:
                raise _not_owned(item, found)
            if item.state == "present":
                _check_above(item, holders, allowed)
        except HostingError as error:
            errors[item.name] = error
    return errors


def _check_above(item: WantedZone, holders: Mapping[dns.name.Name, Holder], allowed: Collection[dns.name.Name]) -> None:
    """Refuse a zone inside another's: it would take names away from that one.

    :raises NotOwned: it is below a zone of another estate or another operator.
    """
    above = item.zone.parent()
    while above != dns.name.root:
        holder = holders.get(above)
        if holder is not None and above not in allowed:
            if holder.owner != item.holder.owner:
                whose = f"{holder.text()!r}" if holder.owner else "somebody else"
            elif holder.operator and holder.operator != item.holder.operator:
                whose = f"operator {holder.operator!r}"
            else:
                whose = ""
            if whose:
                raise NotOwned(
                    f"the zone is below {name_text(above)}, which belongs to {whose}",
                    hint="Choose another zone, or list the upper one in allow_below if its holder agrees",
                )
        above = above.parent()


def _not_owned(item: WantedZone, found: ActualZone) -> NotOwned:
    whose = f"belongs to {found.holder.text()!r}" if found.holder.owner else "carries no mark of ours"
    hint = "Take it out of the server's other configuration first; its zone file can stay"
    if found.identifier:
        place = ".".join((*MARK_LABELS, found.identifier, MEMBERS))
        hint = f"Remove it there first, or set the TXT record {place} of the catalog to {item.holder.text()!r}"
    return NotOwned(f"the zone is there and {whose}", hint=hint)


def _item(option: Mapping[str, Any], owner: str) -> Wanted:
    where = f"zone {option['name']!r}"
    try:
        zone = zone_name(option["name"], f"{where}, name")
        if len(name_text(zone)) > NAME_MAX:
            raise InvalidInput(
                f"the name has {len(name_text(zone))} characters",
                where=f"{where}, name",
                hint=f"File names leave room for {NAME_MAX}",
            )
        operator = option["operator"]
        if operator is not None:
            check_slug(operator, f"{where}, operator")
        return WantedZone(
            name_text(zone),
            zone,
            Holder(owner, operator),
            option["group"],
            _settings(option, where),
            _first_content(option, zone, where),
            option["state"],
        )
    except InvalidInput as error:
        try:
            return MalformedZone(name_text(zone_name(option["name"], "")), error)
        except InvalidInput:
            return MalformedZone(option["name"], error, unclear=True)


def _settings(option: Mapping[str, Any], where: str) -> Settings:
    for key in (*IDENTIFIERS, *LISTS_OF_IDENTIFIERS):
        value = option[key]
        for text in value if isinstance(value, list) else filter(None, [value]):
            if not IDENTIFIER.match(text):
                raise InvalidInput(
                    f"{text!r} is no name of something in the server's configuration",
                    where=f"{where}, {key}",
                    hint="Use letters, digits, dots, hyphens and underscores",
                )
    catalog = option["catalog_zone"]
    settings = settings_from(option)
    if catalog:
        catalog = name_text(zone_name(catalog, f"{where}, catalog_zone"))
        return replace(settings, catalog_zone=catalog)
    return settings


def _first_content(option: Mapping[str, Any], zone: dns.name.Name, where: str) -> FirstContent:
    nameservers = [zone_name(text, f"{where}, nameservers") for text in option["nameservers"]]
    addresses = {
        zone_name(name, f"{where}, addresses"): _addresses(values, f"{where}, addresses, {name}")
        for name, values in option["addresses"].items()
    }
    for name in addresses:
        if name not in nameservers or not name.is_subdomain(zone):
            raise InvalidInput(
                f"{name_text(name)} is no name server inside the zone", where=f"{where}, addresses", hint="Remove it"
            )
    for name in nameservers:
        if name.is_subdomain(zone) and name not in addresses:
            raise InvalidInput(
                f"the name server {name_text(name)} is inside the zone and has no address",
                where=f"{where}, addresses",
                hint="List its addresses",
            )
    if not 0 <= option["ttl"] <= TTL_MAX:
        raise InvalidInput(f"the TTL is {option['ttl']}", where=f"{where}, ttl", hint=f"Use 0 to {TTL_MAX} seconds")
    local, _at, domain = (option["hostmaster"] or f"hostmaster@{name_text(zone)}").rpartition("@")
    if not re.fullmatch(r"[A-Za-z0-9+_-]+(\.[A-Za-z0-9+_-]+)*", local):
        raise InvalidInput(
            f"{option['hostmaster']!r} is no mail address that a SOA record can hold",
            where=f"{where}, hostmaster",
            hint="Use letters, digits, dots, plus signs, hyphens and underscores before the @",
        )
    mailbox = local.replace(".", "\\.") + "." + name_text(zone_name(domain, f"{where}, hostmaster"))
    return FirstContent(
        tuple(name_text(name) for name in nameservers),
        tuple((name_text(name), values) for name, values in addresses.items()),
        mailbox,
        option["ttl"],
    )


def _addresses(values: Any, where: str) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_address(value)) for value in (values if isinstance(values, list) else [values]))
    except ValueError as error:
        raise InvalidInput(str(error), where=where, hint="List IPv4 or IPv6 addresses") from None
