#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: octodns_export
short_description: Write DNS record sets as octoDNS zone and configuration files
version_added: "0.1.0"
description:
  - Writes the record sets of M(fediversity.hosting.dns_records) as files for octoDNS, which has providers for DNS services
    without dynamic updates. The module writes files only; C(octodns-sync) makes the records.
  - Every record set is made by octoDNS itself and compared, so that nothing is exported that octoDNS would refuse or change.
  - A record set that is refused does not keep the others from being exported; the module fails at the end. If the file had it
    before, it stays there as it was, because octoDNS deletes what is not in the file.
  - The configuration has octoDNS' ownership processor with the same marks as M(fediversity.hosting.dns_records). octoDNS
    deletes nothing without such a mark, but takes over what it is told to manage.
  - Files without the module's header are never touched.
options:
  zones:
    description:
      - The zones, as O(fediversity.hosting.dns_records#module:zones). What they say about the server has no meaning here.
      - Files of zones that are not listed are removed, if they carry the header of this module. octoDNS then leaves the zone alone.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the zone.
        type: str
        required: true
      owner:
        description: Owner mark of the record sets, printable ASCII without white space.
        type: str
        default: fediversity
      purge:
        description: Has no meaning here. octoDNS always deletes what carries the mark and is not listed.
        type: bool
        default: false
      adopt:
        description: Has no meaning here. octoDNS always takes over what carries no mark.
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
              - Full name, with or without the final dot.
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
              - octoDNS has no V(SMIMEA).
            type: str
            required: true
          ttl:
            description: Time to live in seconds.
            type: int
            default: 3600
          value:
            description:
              - The values, each written as in a zone file.
              - Required when O(zones[].record_sets[].state=present).
            type: list
            elements: str
            default: []
          adopt:
            description: Has no meaning here.
            type: bool
            default: false
          state:
            description: With V(absent), the record set is not exported.
            type: str
            choices: [present, absent]
            default: present
      records:
        description: Further record sets as lines of text, as O(fediversity.hosting.dns_records#module:zones[].records).
        type: str
        default: ""
  record_sets:
    description:
      - Record sets whose zones are found, as O(fediversity.hosting.dns_records#module:record_sets). It is the longest zone of
        O(zones) that holds the name.
    type: list
    elements: dict
    default: []
    suboptions:
      record:
        description: Full name, with or without the final dot.
        type: str
        required: true
      type:
        description: Type of the records.
        type: str
        required: true
      ttl:
        description: Time to live in seconds.
        type: int
        default: 3600
      value:
        description: The values, each written as in a zone file.
        type: list
        elements: str
        default: []
      adopt:
        description: Has no meaning here.
        type: bool
        default: false
      state:
        description: With V(absent), the record set is not exported.
        type: str
        choices: [present, absent]
        default: present
  dest:
    description:
      - Directory of the export, made if it does not exist. It gets C(config.yaml) and a directory C(zones).
    type: path
    required: true
  zones_directory:
    description:
      - Where octoDNS finds the zone files, if they are moved to another place. A relative path starts where octoDNS is run.
      - The default is C(zones) below O(dest).
    type: str
  provider:
    description: The provider that octoDNS writes to.
    type: dict
    required: true
    suboptions:
      name:
        description: Its name in the configuration.
        type: str
        default: target
      class:
        description: Its Python class, for example V(octodns_cloudflare.CloudflareProvider).
        type: str
        required: true
      settings:
        description:
          - Its further settings.
          - Secrets are references to environment variables, V(env/NAME). Settings that are called like secrets are refused with
            any other value.
        type: dict
        default: {}
  sync_max_update_percent:
    description: octoDNS refuses to change more than this share of a zone with 10 records or more.
    type: int
    default: 30
  sync_max_delete_percent:
    description: octoDNS refuses to delete more than this share of a zone with 10 records or more.
    type: int
    default: 30
  max_workers:
    description: How many zones octoDNS works on at a time.
    type: int
    default: 1
requirements:
  - dnspython >= 2.6 (Python library), with its idna extra for names beyond ASCII
  - octodns >= 1.22 (Python library), where the module runs
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
seealso:
  - module: fediversity.hosting.dns_records
  - name: octoDNS
    description: Its documentation, with the list of providers.
    link: https://octodns.readthedocs.io/
author:
  - Fediversity hosting contributors (@fediversity)
"""

EXAMPLES = r"""
- name: Export the records of an estate for Cloudflare
  fediversity.hosting.octodns_export:
    dest: /srv/octodns
    provider:
      class: octodns_cloudflare.CloudflareProvider
      settings:
        token: env/CLOUDFLARE_TOKEN
    zones:
      - name: example.org
        record_sets:
          - record: social.alice.example.org
            type: A
            ttl: 300
            value: [192.0.2.10]
          - prefix: ""
            type: TXT
            value: ["v=spf1 -all"]
  delegate_to: localhost
"""

RETURN = r"""
results:
  description: One entry per file and per record set that was refused, sorted by name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The file below O(dest), or name and type of the record set.
      type: str
      returned: always
      sample: zones/example.org.yaml
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
    path:
      description: The file.
      type: str
      returned: when the file exists
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.arguments import (
    RECORD_SETS_ARGUMENT,
    ZONES_ARGUMENT,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.module import (
    LIMIT_ARGUMENTS,
    require_libraries,
    run_batch,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.octodns.export import (
    listed_files,
    read_zones,
    wanted_files,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.octodns.files import ZONES, OctodnsFiles, Wanted
from ansible_collections.fediversity.hosting.plugins.module_utils.octodns.settings import (
    Limits,
    clear_secrets,
    config_document,
    target_from,
)

ARGUMENTS = {
    "zones": {**ZONES_ARGUMENT, "required": True},
    "record_sets": RECORD_SETS_ARGUMENT,
    "dest": {"type": "path", "required": True},
    "zones_directory": {"type": "str"},
    "provider": {
        "type": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "default": "target"},
            "class": {"type": "str", "required": True},
            "settings": {"type": "dict", "default": {}},
        },
    },
    "sync_max_update_percent": {"type": "int", "default": 30},
    "sync_max_delete_percent": {"type": "int", "default": 30},
    "max_workers": {"type": "int", "default": 1},
    **LIMIT_ARGUMENTS,
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    require_libraries(module, "dns", "octodns", "yaml")
    # they are refused, and must not be shown among the arguments
    settings = module.params["provider"]["settings"]
    module.no_log_values.update(value for _error, value in clear_secrets(settings, "provider, settings") if value)

    def make() -> tuple[OctodnsFiles, list[Wanted]]:
        params = module.params
        directory = Path(params["dest"])
        target = target_from(params["provider"])
        limits = Limits(params["sync_max_update_percent"], params["sync_max_delete_percent"])
        zones_directory = params["zones_directory"] or str(directory.absolute() / ZONES)
        wanted = wanted_files(
            *read_zones(params["zones"], params["record_sets"]),
            directory,
            lambda zones: config_document(zones, target, zones_directory, limits, params["max_workers"]),
        )
        return OctodnsFiles(directory, listed_files(params["zones"]).__contains__), wanted

    run_batch(module, make)


if __name__ == "__main__":
    main()
