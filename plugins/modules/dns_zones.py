#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dns_zones
short_description: Manage which zones a primary DNS server has
version_added: "0.1.0"
description:
  - Makes the zones of a primary DNS server equal to the wanted ones, all in one call, either as members of a catalog zone
    (RFC 9432) or in an include file of the server's configuration.
  - The content of a zone is not managed. A new zone gets a file with its SOA and NS records. A file that exists is never
    overwritten, because it belongs to the server.
  - Nothing is deleted. Before a zone goes, its content is copied by zone transfer. Its file is renamed afterwards.
  - Zones carry an owner mark. Those of others are refused and never touched, and no zone is made below one of them.
  - An item that is refused or fails does not keep the others from being made; the module fails at the end.
  - The results say what has to be delegated to the zone by its registrar or the zone above.
options:
  zones:
    description:
      - The zones, each listed once.
      - Zones that are not listed are not touched without O(purge).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the zone, of letters, digits, hyphens, underscores and dots.
          - Letters beyond ASCII become A-labels.
        type: str
        required: true
      operator:
        description:
          - The operator whose zone it is. Nobody else can have a zone below it.
          - A zone without operator belongs to the hosting provider; every operator may have zones below it.
        type: str
      state:
        description:
          - Whether the server has the zone.
        type: str
        choices: [present, absent]
        default: present
      nameservers:
        description:
          - Names of the name servers, for the file of a new zone. The first one becomes the primary server in the SOA record.
          - Required where a file has to be written.
        type: list
        elements: str
        default: []
      addresses:
        description:
          - Addresses of those name servers that are inside the zone, a list for each name.
        type: dict
        default: {}
      hostmaster:
        description:
          - Mail address in the SOA record of a new zone.
          - The default is V(hostmaster@) and the name of the zone.
        type: str
      ttl:
        description: Time to live of the records of a new zone, in seconds.
        type: int
        default: 3600
      group:
        description:
          - Group of the zone in the catalog (RFC 9432 section 4.3.2). Knot takes it for the name of a template.
          - With O(method=file) it needs O(zones[].catalog_zone).
        type: str
      catalog_zone:
        description:
          - Catalog that Knot generates (C(catalog-role), V(generate)) and of which this zone is a member.
          - Only with O(method=file) and O(software=knot).
        type: str
      template:
        description:
          - Template of Knot's configuration.
          - Only with O(method=file) and O(software=knot).
        type: str
      acl:
        description:
          - Access rules (C(acl)) of Knot's configuration.
          - Only with O(method=file) and O(software=knot).
        type: list
        elements: str
        default: []
      notify:
        description:
          - Whom to notify of changes, by the names of Knot's C(remote) or BIND's C(primaries).
          - Only with O(method=file).
        type: list
        elements: str
        default: []
      dnssec_policy:
        description:
          - Sign the zone, by this policy of the server's configuration.
          - Only with O(method=file).
        type: str
      transfer_keys:
        description:
          - Names of the TSIG keys that may transfer the zone.
          - Only with O(method=file) and O(software=bind).
        type: list
        elements: str
        default: []
      update_keys:
        description:
          - Names of the TSIG keys that may update everything in the zone.
          - Only with O(method=file) and O(software=bind).
        type: list
        elements: str
        default: []
  method:
    description:
      - With V(catalog), zones are members of the catalog zone O(catalog), which O(server) takes updates of.
      - With V(file), zones are in the file O(include_file) of the server that the module runs on.
    type: str
    choices: [catalog, file]
    required: true
  owner:
    description:
      - Owner mark of the zones, printable ASCII without white space.
      - Estates that share a catalog or a server need different marks.
    type: str
    default: fediversity
  purge:
    description: Remove the zones that carry the owner mark and are not listed.
    type: bool
    default: false
  allow_below:
    description: Zones of others, or of other operators, below which zones may be made.
    type: list
    elements: str
    default: []
  catalog:
    description:
      - Name of the catalog zone. It has to be of version 2 and no member of itself.
      - Required with O(method=catalog).
    type: str
  software:
    description:
      - What the server is.
      - Required with O(method=file).
    type: str
    choices: [knot, bind]
  server_config:
    description:
      - Main file of the server's configuration. It has to include O(include_file) by its full path.
      - Required with O(method=file).
    type: path
  include_file:
    description:
      - The file with the zones, ours alone. It has to exist, empty at first.
      - Required with O(method=file).
    type: path
  directory:
    description:
      - Directory of the zone files, which are called by the zone and C(.zone).
      - Required with O(method=file). With O(method=catalog) only if the module runs on the server and the members' template says
        so.
    type: path
  file_owner:
    description: Owner of the files that are written, usually the server's user.
    type: str
  file_group:
    description: Group of the files that are written.
    type: str
  reload_command:
    description:
      - The command that has the server read its configuration again, as a list of arguments; no shell is used.
      - The default is C(knotc -c) O(server_config) C(reload) or C(rndc reconfig).
    type: list
    elements: str
  keep_directory:
    description:
      - Directory for the copies of zones that go, on the host that the module runs on.
      - Required to remove zones, with O(server), without O(remove_without_copy).
    type: path
  remove_without_copy:
    description: Remove also zones that cannot be copied.
    type: bool
    default: false
  wait:
    description:
      - How long to wait, in seconds, until O(server) serves the new zones.
      - One that it does not serve then gets a warning.
    type: int
    default: 10
  server:
    description:
      - Name or address of the primary server of the zones and the catalog.
      - If it is not set, the environment variable E(DNS_SERVER) is used.
      - Required with O(method=catalog). With O(method=file) it is asked what it serves and for copies of zones.
    type: str
requirements:
  - with O(method=file), C(knotc) or C(named-checkconf) and C(named-checkzone)
notes:
  - BIND takes catalogs as a secondary server only.
  - A server that reads a catalog drops what it knows of a zone that leaves it, among it what was updated dynamically.
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.dns
seealso:
  - module: fediversity.hosting.dns_records
  - name: RFC 9432
    description: DNS catalog zones.
    link: https://www.rfc-editor.org/rfc/rfc9432
author:
  - Fediversity hosting contributors (@fediversity)
"""

EXAMPLES = r"""
- name: Make the zones of two operators members of a catalog
  fediversity.hosting.dns_zones:
    method: catalog
    catalog: catalog.invalid
    server: ns1.example.org
    tsig_name: provisioning.
    tsig_secret: "{{ vault_tsig_secret }}"
    zones:
      - {name: alice.example, operator: alice, group: signed}
      - {name: bob.example, operator: bob}

- name: Make the zones of Knot, with an empty zone file for new ones
  fediversity.hosting.dns_zones:
    method: file
    software: knot
    server_config: /etc/knot/knot.conf
    include_file: /etc/knot/fediversity.conf
    directory: /var/lib/knot/zones
    keep_directory: /var/lib/knot/gone
    file_owner: knot
    file_group: knot
    server: 127.0.0.1
    tsig_name: provisioning.
    tsig_secret: "{{ vault_tsig_secret }}"
    zones:
      - name: alice.example
        operator: alice
        template: signed
        acl: [provisioning]
        nameservers: [ns1.example.org, ns2.example.org]
      - name: carol.example
        state: absent
  become: true
"""

RETURN = r"""
results:
  description: One entry per zone, sorted by name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the zone.
      type: str
      returned: always
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
    mark:
      description: The owner mark, with the operator.
      type: str
      returned: when the zone exists
    member:
      description: The label of the zone in the catalog.
      type: str
      returned: when the zone exists, with O(method=catalog)
    file:
      description: The zone file.
      type: str
      returned: when the zone exists, with O(method=file)
    served:
      description: Whether O(server) serves the zone.
      type: bool
      returned: for zones that are wanted
    nameservers:
      description: The name servers of the zone, as it says itself when it is served.
      type: list
      elements: str
      returned: for zones that are wanted
    glue:
      description: Addresses of the name servers inside the zone, which the zone above has to have too.
      type: dict
      returned: for zones that are wanted
    ds:
      description: DS records that the zone asks for by its CDS records.
      type: list
      elements: str
      returned: for zones that are wanted
    delegation:
      description: The records to set at the registrar or in the zone above.
      type: list
      elements: str
      returned: for zones that are wanted
    kept:
      description: Where the content and the file of the zone are kept.
      type: list
      elements: str
      returned: for zones that were removed in this run
  sample:
    - name: alice.example
      action: create
      changed: true
      failed: false
      msg: ""
      mark: fediversity.hosting:fediversity operator=alice
      member: 4dd9e1b2cb1ba6df4a8cb3d4a2b5c2ac
      served: true
      nameservers: [ns1.example.org]
      glue: {}
      ds: []
      delegation: ["alice.example. NS ns1.example.org."]
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.arguments import (
    SERVER_ARGUMENTS,
    TSIG_TOGETHER,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server, make_server
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.catalog import CatalogZones
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.configured import (
    Configuration,
    ConfiguredZones,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.delegation import (
    delegation,
    expected,
    wait_until_served,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.files import Files
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.model import (
    WantedZone,
    check_owner,
    from_options,
    zone_name,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.removal import Removal
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.module import (
    LIMIT_ARGUMENTS,
    leave,
    require_libraries,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Limits, reconcile

ZONE_ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "operator": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "nameservers": {"type": "list", "elements": "str", "default": []},
    "addresses": {"type": "dict", "default": {}},
    "hostmaster": {"type": "str"},
    "ttl": {"type": "int", "default": 3600},
    "group": {"type": "str"},
    "catalog_zone": {"type": "str"},
    "template": {"type": "str"},
    "acl": {"type": "list", "elements": "str", "default": []},
    "notify": {"type": "list", "elements": "str", "default": []},
    "dnssec_policy": {"type": "str"},
    # names of keys are no secrets
    "transfer_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "update_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
}

ARGUMENTS = {
    "zones": {"type": "list", "elements": "dict", "required": True, "options": ZONE_ARGUMENTS},
    "method": {"type": "str", "choices": ["catalog", "file"], "required": True},
    "owner": {"type": "str", "default": "fediversity"},
    "purge": {"type": "bool", "default": False},
    "allow_below": {"type": "list", "elements": "str", "default": []},
    "catalog": {"type": "str"},
    "software": {"type": "str", "choices": ["knot", "bind"]},
    "server_config": {"type": "path"},
    "include_file": {"type": "path"},
    "directory": {"type": "path"},
    "file_owner": {"type": "str"},
    "file_group": {"type": "str"},
    "reload_command": {"type": "list", "elements": "str"},
    "keep_directory": {"type": "path"},
    "remove_without_copy": {"type": "bool", "default": False},
    "wait": {"type": "int", "default": 10},
    **SERVER_ARGUMENTS,
    **LIMIT_ARGUMENTS,
}


def server_of(params: dict[str, Any]) -> Server | None:
    """The server of the options, ``None`` without one."""
    if params["server"] is None:
        return None
    return make_server(
        params["server"], params["port"], params["tsig_name"], params["tsig_secret"], params["tsig_algorithm"]
    )


def removal_of(params: dict[str, Any], server: Server | None) -> Removal:
    """How zones go."""
    directory, keep = params["directory"], params["keep_directory"]
    zone_files = Files(Path(directory), params["file_owner"], params["file_group"]) if directory else None
    return Removal(server, Path(keep) if keep else None, params["remove_without_copy"], zone_files)


def provider_of(params: dict[str, Any], server: Server | None, removal: Removal) -> CatalogZones | ConfiguredZones:
    """What keeps the zones."""
    allowed = [zone_name(text, "allow_below") for text in params["allow_below"]]
    owner, purge = check_owner(params["owner"]), params["purge"]
    if params["method"] == "catalog":
        catalog = zone_name(params["catalog"], "catalog")
        return CatalogZones(server, catalog, owner, removal, purge=purge, allowed=allowed)
    software, main = params["software"], params["server_config"]
    default = ["knotc", "-c", main, "reload"] if software == "knot" else ["rndc", "reconfig"]
    reload = tuple(params["reload_command"] or default)
    configuration = Configuration(software, Path(main), Path(params["include_file"]), reload)
    return ConfiguredZones(configuration, removal.zone_files, owner, removal, purge=purge, allowed=allowed)


def reconciled(module: AnsibleModule) -> dict[str, Any]:
    """Make the zones, see what is served of them, and return the result of the module."""
    params = module.params
    server = server_of(params)
    removal = removal_of(params, server)
    desired = from_options(params["zones"], params["owner"])
    limits = Limits(max_delete_percent=params["max_delete_percent"])
    result = reconcile(provider_of(params, server, removal), desired, check=module.check_mode, limits=limits)
    wanted = {item.name: item for item in desired if isinstance(item, WantedZone) and item.state == "present"}
    done = [entry for entry in result["results"] if not entry["failed"] and entry["name"] in wanted]
    if server is not None and not module.check_mode:
        new = [wanted[entry["name"]] for entry in done if entry["changed"]]
        for name in wait_until_served(server, new, params["wait"]):
            module.warn(f"{params['server']} does not serve the zone {name}: look at its log")
    for entry in done:
        item = wanted[entry["name"]]
        entry.update(expected(item) if server is None else delegation(server, item))
    for entry in result["results"]:
        if entry["action"] == "delete":
            entry["kept"] = removal.kept.get(entry["name"], [])
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_together=TSIG_TOGETHER,
        required_if=[
            ("method", "catalog", ("catalog", "server")),
            ("method", "file", ("software", "server_config", "include_file", "directory")),
        ],
        supports_check_mode=True,
    )
    require_libraries(module, "dns")
    try:
        result = reconciled(module)
    except HostingError as error:
        result = {"failed": True, "changed": False, "msg": str(error), "results": []}
    leave(module, result)


if __name__ == "__main__":
    main()
