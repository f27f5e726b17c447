#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dns_records
short_description: Manage DNS record sets by dynamic updates
version_added: "0.1.0"
description:
  - Makes the record sets of some zones on their primary DNS servers equal to the desired ones, all in one call.
  - A zone is read by one zone transfer, changed by one signed UPDATE message (RFC 2136), and read again. Servers answer
    that all is well to updates that they drop, so only what is read back counts.
  - Every record set that this module makes has a TXT record C(_owner.<type>.<name>) that says so. A record set without
    the mark of its zone's O(zones[].owner) is refused and never touched, unless it is adopted.
  - Updates carry conditions, so what somebody else changes at the same time is not overwritten. It is told instead. A TXT
    record C(_registry) of the zone changes with every update.
  - What a DNS server would drop or nobody could use is refused item by item, before anything is written. An item that is
    refused or fails does not keep the others from being made; the module fails at the end.
  - SOA and NS records of the zone itself and records of DNSSEC are left to the server.
options:
  zones:
    description: The zones, each listed once.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the zone.
        type: str
        required: true
      owner:
        description:
          - Owner mark of the record sets, printable ASCII without white space.
          - Estates that write to the same zone need different marks.
        type: str
        default: fediversity
      purge:
        description:
          - Delete the record sets that carry the owner mark and are not listed.
          - Needs the right to transfer the zone.
        type: bool
        default: false
      adopt:
        description:
          - Take over all listed record sets that exist and carry no mark at all.
          - Record sets that carry the mark of somebody else are refused all the same.
        type: bool
        default: false
      record_sets:
        description: The record sets, one for all records of one name and type.
        type: list
        elements: dict
        default: []
        suboptions:
          record:
            description:
              - Full name, with or without the final dot. Letters beyond ASCII become A-labels (IDNA 2008).
              - Mutually exclusive with O(zones[].record_sets[].prefix).
            type: str
          prefix:
            description:
              - The part of the name before the zone; an empty string or V(@) for the zone itself.
              - Mutually exclusive with O(zones[].record_sets[].record).
            type: str
          type:
            description:
              - Type of the records.
              - One of V(A), V(AAAA), V(CAA), V(CNAME), V(DS), V(HTTPS), V(LOC), V(MX), V(NAPTR), V(NS), V(OPENPGPKEY),
                V(PTR), V(SMIMEA), V(SRV), V(SSHFP), V(SVCB), V(TLSA), V(TXT), V(URI).
            type: str
            required: true
          ttl:
            description: Time to live in seconds.
            type: int
            default: 3600
          value:
            description:
              - The values, each written as in a zone file.
              - Names in values are always complete, with or without the final dot.
              - The text of a V(TXT) record is written without quotes; it may be longer than 255 bytes.
              - Required when the record set shall be present.
            type: list
            elements: str
            default: []
          adopt:
            description: Take over the record set if it exists and carries no mark at all.
            type: bool
            default: false
          state:
            description: Whether the record set is there.
            type: str
            choices: [present, absent]
            default: present
      records:
        description:
          - More record sets as text, with one record in each line, C(NAME [TTL] [IN] TYPE VALUE). This is the form for
            thousands of record sets, because Ansible takes seconds to hand over as many dictionaries.
          - Names without a final dot are relative to the zone, V(@) is the zone itself. A TTL that is left out is 3600.
          - Values are written as in O(zones[].record_sets[].value), only that texts with blanks need quotes.
          - Empty lines and lines that begin with V(;) are skipped. There are no directives, and no records over several
            lines.
          - In RV(results) are only those of these record sets with which something is done or wrong.
          - Where a line cannot be understood, the record sets of its name stay as they are and nothing in the zone is
            purged.
        type: str
        default: ""
  record_sets:
    description:
      - Record sets whose zones are found. That is the longest zone of O(zones) and O(servers[].zones) that holds the
        name, otherwise the one that the servers tell. No resolver is asked.
    type: list
    elements: dict
    default: []
    suboptions:
      record:
        description: Full name, as O(zones[].record_sets[].record).
        type: str
        required: true
      type:
        description:
          - Type of the records.
          - One of V(A), V(AAAA), V(CAA), V(CNAME), V(DS), V(HTTPS), V(LOC), V(MX), V(NAPTR), V(NS), V(OPENPGPKEY),
            V(PTR), V(SMIMEA), V(SRV), V(SSHFP), V(SVCB), V(TLSA), V(TXT), V(URI).
        type: str
        required: true
      ttl:
        description: Time to live in seconds.
        type: int
        default: 3600
      value:
        description:
          - The values, each written as in a zone file.
          - Names in values are always complete, with or without the final dot.
          - The text of a V(TXT) record is written without quotes; it may be longer than 255 bytes.
          - Required when the record set shall be present.
        type: list
        elements: str
        default: []
      adopt:
        description: Take over the record set if it exists and carries no mark at all.
        type: bool
        default: false
      state:
        description: Whether the record set is there.
        type: str
        choices: [present, absent]
        default: present
  owner:
    description: Owner mark of the O(record_sets) in zones that are not listed in O(zones).
    type: str
    default: fediversity
  servers:
    description:
      - More primary servers. A zone belongs to the server that lists it or the longest zone above it, otherwise to the
        one that answers for it.
      - One server may be listed several times, with different keys for different zones.
    type: list
    elements: dict
    default: []
    suboptions:
      server:
        description: Name or address of the server.
        type: str
        required: true
      port:
        description: Port of the server.
        type: int
        default: 53
      tsig_name:
        description: Name of the TSIG key.
        type: str
      tsig_secret:
        description: Secret of the TSIG key, in base64.
        type: str
      tsig_algorithm:
        description: Algorithm of the TSIG key.
        type: str
        choices: [hmac-sha256, hmac-sha384, hmac-sha512]
        default: hmac-sha256
      zones:
        description: Names of zones that the server is the primary server of; zones below them belong to them.
        type: list
        elements: str
        default: []
  ttl_override:
    description:
      - Time to live in seconds of all record sets of this call, instead of their own.
      - Lower it before a move, wait as long as the old one was, move, and leave it out again.
    type: int
  allow_apex_ns:
    description:
      - Whether NS records of a zone itself may be listed. They are never purged, and cannot be absent.
      - Existing ones have to be adopted.
    type: bool
    default: false
  max_update_percent:
    description:
      - Refuse the whole plan, before anything is written, if it changes values of more than this share of the record sets
        that we have or take over in a zone. O(max_delete_percent) is a share of the same.
      - Not checked while there are fewer than 10 of them.
    type: int
    default: 30
  wait_for_secondaries:
    description:
      - In the end, wait at most this many seconds until the other servers have what the primary server has, and fail
        if one lags. V(0) does not ask them.
      - Asked are the servers of the zone's NS records, at port 53, or O(secondaries).
    type: int
    default: 0
  secondaries:
    description: The servers that are waited for, as V(ADDRESS), V(ADDRESS:PORT) or V([ADDRESS]:PORT).
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.dns
notes:
  - Without the right to transfer a zone, the listed names are asked for one by one. Then record sets that nobody lists
    cannot be seen, and names that a wildcard covers look as if they existed.
seealso:
  - module: community.general.nsupdate
  - module: community.dns.hosttech_dns_record_sets
author:
  - Fediversity hosting contributors (@fediversity)
"""

EXAMPLES = r"""
- name: Make the records of two applications
  fediversity.hosting.dns_records:
    server: ns1.example.org
    tsig_name: provisioning.
    tsig_secret: "{{ vault_tsig_secret }}"
    zones:
      - name: example.org
        record_sets:
          - record: social.alice.example.org
            type: A
            ttl: 300
            value: [192.0.2.10]
          - prefix: www
            type: CNAME
            value: [social.alice.example.org]
          - prefix: ""
            type: TXT
            value: ["v=spf1 -all"]

- name: Delete everything that this estate has in a zone and that is not listed
  fediversity.hosting.dns_records:
    server: ns1.example.org
    tsig_name: provisioning.
    tsig_secret: "{{ vault_tsig_secret }}"
    zones:
      - name: example.org
        purge: true
        record_sets:
          - prefix: www
            type: A
            value: [192.0.2.10]

- name: Thousands of record sets
  fediversity.hosting.dns_records:
    server: ns1.example.org
    tsig_name: provisioning.
    tsig_secret: "{{ vault_tsig_secret }}"
    zones:
      - name: example.org
        purge: true
        records: "{{ lookup('ansible.builtin.template', 'example.org.records') }}"

- name: Records of zones on several servers, found by name, and wait until they are everywhere
  fediversity.hosting.dns_records:
    servers:
      - server: ns1.example.org
        tsig_name: provisioning.
        tsig_secret: "{{ vault_tsig_secret }}"
        zones: [example.org]
      - server: ns1.example.net
        tsig_name: provisioning-net.
        tsig_secret: "{{ vault_tsig_secret_net }}"
    record_sets:
      - record: www.example.org
        type: AAAA
        value: ["2001:db8::10"]
      - record: bücher.example.net
        type: CNAME
        value: [www.example.org]
    wait_for_secondaries: 60

- name: Shorten the time to live of everything before a move
  fediversity.hosting.dns_records:
    server: ns1.example.org
    tsig_name: provisioning.
    tsig_secret: "{{ vault_tsig_secret }}"
    zones: "{{ zones }}"
    ttl_override: 60
"""

RETURN = r"""
results:
  description:
    - One entry per record set, sorted by name. Those of O(zones[].records) that are as desired are left out.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name and type of the record set, the name with letters beyond ASCII.
      type: str
      returned: always
      sample: www.example.org A
    action:
      description: What was done, or would be done in check mode.
      type: str
      returned: always
      sample: create
    changed:
      description: Whether the item was changed, or would be in check mode.
      type: bool
      returned: always
    failed:
      description: Whether the item was refused or could not be changed.
      type: bool
      returned: always
    msg:
      description: Why the item failed and what to do about it.
      type: str
      returned: always
    zone:
      description: Name of the zone.
      type: str
      returned: when the record set exists
    record:
      description: Full name, without the final dot, with A-labels.
      type: str
      returned: when the record set exists
    type:
      description: Type of the records.
      type: str
      returned: when the record set exists
    ttl:
      description: Time to live in seconds.
      type: int
      returned: when the record set exists
    value:
      description: The values, sorted.
      type: list
      elements: str
      returned: when the record set exists
zones:
  description: The zones and where they are managed.
  returned: when a server could be asked
  type: list
  elements: dict
  contains:
    name:
      description: Name of the zone.
      type: str
      returned: always
    server:
      description: Address and port of its primary server.
      type: str
      returned: always
    serial:
      description: Serial that the primary server has.
      type: int
      returned: when O(wait_for_secondaries) is set
    lagging:
      description: The servers that do not have this serial, with what they have and why.
      type: list
      elements: dict
      returned: when O(wait_for_secondaries) is set
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.arguments import (
    ALGORITHMS,
    RECORD_SETS_ARGUMENT,
    SERVER_ARGUMENTS,
    TSIG_TOGETHER,
    ZONES_ARGUMENT,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.request import from_params, wait_for_secondaries
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.secondaries import parse_secondary
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.module import (
    LIMIT_ARGUMENTS,
    leave,
    require_libraries,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Limits, reconcile

FURTHER_SERVER_ARGUMENTS = {
    "server": {"type": "str", "required": True},
    "port": {"type": "int", "default": 53},
    "tsig_name": {"type": "str"},
    "tsig_secret": {"type": "str", "no_log": True},
    "tsig_algorithm": {"type": "str", "default": "hmac-sha256", "choices": ALGORITHMS},
    "zones": {"type": "list", "elements": "str", "default": []},
}

ARGUMENTS = {
    **SERVER_ARGUMENTS,
    "servers": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": FURTHER_SERVER_ARGUMENTS,
        "required_together": TSIG_TOGETHER,
    },
    "zones": {**ZONES_ARGUMENT, "default": []},
    "record_sets": RECORD_SETS_ARGUMENT,
    "owner": {"type": "str", "default": "fediversity"},
    "ttl_override": {"type": "int"},
    "allow_apex_ns": {"type": "bool", "default": False},
    "max_update_percent": {"type": "int", "default": 30},
    "wait_for_secondaries": {"type": "int", "default": 0},
    "secondaries": {"type": "list", "elements": "str", "default": []},
    **LIMIT_ARGUMENTS,
}


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    secondaries = [parse_secondary(text) for text in params["secondaries"]]
    request = from_params(params)
    provider = request.provider()
    limits = Limits(params["max_delete_percent"], params["max_update_percent"])
    result = reconcile(provider, request.items, check=check, limits=limits, shares=provider.shares)
    if params["wait_for_secondaries"] and not check:
        return wait_for_secondaries(request, secondaries, params["wait_for_secondaries"], result)
    return {**result, "zones": request.report()}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, required_together=TSIG_TOGETHER, supports_check_mode=True)
    require_libraries(module, "dns")
    try:
        result = run(module.params, module.check_mode)
    except HostingError as error:
        result = {"failed": True, "changed": False, "msg": str(error), "results": []}
    leave(module, result)


if __name__ == "__main__":
    main()
