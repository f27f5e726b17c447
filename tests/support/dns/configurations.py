# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the DNS servers are told: files that need neither root nor systemd and stay in one directory."""

from __future__ import annotations

FIRST_SERIAL = 1
ZONE_FILE = """$ORIGIN {zone}.
$TTL 3600
@ SOA ns1 hostmaster 1 3600 600 86400 300
@ NS ns1
ns1 A 127.0.0.1
foreign A 192.0.2.99
foreign TXT "theirs"
"""

KNOT = """
server:
    listen: 127.0.0.1@{port}
    rundir: {directory}
{user}
log:
  - target: stderr
    any: info
database:
    storage: {directory}/db
key:
  - id: "{full}"
    algorithm: hmac-sha256
    secret: "{secret}"
  - id: "{update}"
    algorithm: hmac-sha256
    secret: "{secret}"
{secondaries}
acl:
  - id: full
    key: "{full}"
    action: [transfer, update]
  - id: update
    key: "{update}"
    action: [update]
template:
  - id: default
    storage: {directory}
    file: "%s.zone"
    zonefile-sync: -1
    journal-content: changes
    acl: [full, update]
{notify}
{settings}
zone:
{zones}
"""

KNOT_SECONDARY = """  - id: secondary{port}
    address: 127.0.0.1@{port}
"""

KNOT_ZONE = "  - domain: {zone}\n"

BIND = """
options {{
    directory "{directory}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    pid-file "{directory}/named.pid";
    session-keyfile "{directory}/session.key";
    recursion no;
    dnssec-validation no;
    notify explicit;
    notify-delay 0;
    startup-notify-rate 1000;
    notify-rate 1000;
    also-notify {{ {notify} }};
}};
controls {{ }};
key "{full}" {{ algorithm hmac-sha256; secret "{secret}"; }};
key "{update}" {{ algorithm hmac-sha256; secret "{secret}"; }};
{zones}
"""

BIND_ZONE = """
zone "{zone}" {{
    type primary;
    file "{directory}/{zone}.zone";
    allow-transfer {{ key "{full}"; }};
    update-policy {{ deny * name {denied}. ANY; grant {full} zonesub ANY; grant {update} zonesub ANY; }};
    {settings}
}};
"""

POWERDNS = """
launch=gsqlite3
gsqlite3-database={directory}/pdns.sqlite3
local-address=127.0.0.1
local-port={port}
socket-dir={directory}
daemon=no
guardian=no
disable-syslog=yes
log-timestamp=no
loglevel=6
primary=yes
send-signed-notify=no
only-notify=
also-notify={notify}
xfr-cycle-interval=1
dnsupdate=yes
allow-dnsupdate-from=127.0.0.0/8
allow-axfr-ips=
cache-ttl=0
negquery-cache-ttl=0
query-cache-ttl=0
zone-cache-refresh-interval=0
zone-metadata-cache-ttl=0
domain-metadata-cache-ttl=0
security-poll-suffix=
"""

NSD = """
server:
    ip-address: 127.0.0.1@{port}
    server-count: 1
    username: ""
    database: ""
    zonesdir: "{directory}"
    zonelistfile: "{directory}/zone.list"
    pidfile: "{directory}/nsd.pid"
    xfrdfile: "{directory}/xfrd.state"
    xfrdir: "{directory}"
    verbosity: 1
remote-control:
    control-enable: no
key:
    name: "{key}"
    algorithm: hmac-sha256
    secret: "{secret}"
{zones}
"""

NSD_ZONE = """
zone:
    name: "{zone}"
    request-xfr: 127.0.0.1@{primary} "{key}"
    allow-notify: 127.0.0.1 NOKEY
    max-retry-time: 1
"""
