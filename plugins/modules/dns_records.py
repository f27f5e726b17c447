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
  - Makes the record sets of some zones on one primary DNS server equal to the desired ones, all in one call.
  - A zone is read by one zone transfer, changed by one signed UPDATE message (RFC 2136), and read again. Servers answer
    that all is well to updates that they drop, so only what is read back counts.
  - Every record set that this module makes has a TXT record C(_owner.<type>.<name>) that says so. A record set without
    the mark of its zone's O(zones[].owner) is refused and never touched.
  - An item that is refused or fails does not keep the others from being made; the module fails at the end.
  - Updates carry conditions, so what somebody else changes at the same time is not overwritten.
  - SOA and NS records of the zone itself and records of DNSSEC are left to the server.
options:
  zones:
    description: The zones, each listed once.
    type: list
    elements: dict
    required: true
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
      record_sets:
        description: The record sets, one for all records of one name and type.
        type: list
        elements: dict
        required: true
        suboptions:
          record:
            description:
              - Full name, with or without the final dot. Letters beyond ASCII become A-labels.
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
              - Required when O(zones[].record_sets[].state=present).
            type: list
            elements: str
            default: []
          state:
            description: Whether the record set is there.
            type: str
            choices: [present, absent]
            default: present
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.dns
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
"""

RETURN = r"""
results:
  description: One entry per record set, sorted by name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name and type of the record set.
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
      description: Full name, without the final dot.
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
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import make_server
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import Desired, from_options
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.provider import DnsRecords
from ansible_collections.fediversity.hosting.plugins.module_utils.module import (
    LIMIT_ARGUMENTS,
    require_libraries,
    run_batch,
)

RECORD_SET_ARGUMENTS = {
    "record": {"type": "str"},
    "prefix": {"type": "str"},
    "type": {"type": "str", "required": True},
    "ttl": {"type": "int", "default": 3600},
    "value": {"type": "list", "elements": "str", "default": []},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}

ZONE_ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str", "default": "fediversity"},
    "purge": {"type": "bool", "default": False},
    "record_sets": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": RECORD_SET_ARGUMENTS,
        "mutually_exclusive": [("record", "prefix")],
        "required_one_of": [("record", "prefix")],
    },
}

ARGUMENTS = {
    "server": {"type": "str", "required": True, "fallback": (env_fallback, ["DNS_SERVER"])},
    "port": {"type": "int", "default": 53},
    "tsig_name": {"type": "str", "fallback": (env_fallback, ["DNS_TSIG_NAME"])},
    "tsig_secret": {"type": "str", "no_log": True, "fallback": (env_fallback, ["DNS_TSIG_SECRET"])},
    "tsig_algorithm": {
        "type": "str",
        "default": "hmac-sha256",
        "choices": ["hmac-sha256", "hmac-sha384", "hmac-sha512"],
        "fallback": (env_fallback, ["DNS_TSIG_ALGORITHM"]),
    },
    "zones": {"type": "list", "elements": "dict", "required": True, "options": ZONE_ARGUMENTS},
    **LIMIT_ARGUMENTS,
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS, required_together=[("tsig_name", "tsig_secret")], supports_check_mode=True
    )
    require_libraries(module, "dns")

    def make() -> tuple[DnsRecords, list[Desired]]:
        params = module.params
        server = make_server(
            params["server"], params["port"], params["tsig_name"], params["tsig_secret"], params["tsig_algorithm"]
        )
        zones, record_sets = from_options(params["zones"])
        return DnsRecords(server, zones), record_sets

    run_batch(module, make)


if __name__ == "__main__":
    main()
