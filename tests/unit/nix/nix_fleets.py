# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleet files for the tests, in the form that the plan writes."""

from __future__ import annotations

from typing import Any

SECRETS_ROOT = "/var/lib/fediversity/secrets"
HOSTILE = (
    "{{ lookup('pipe','id') }} \" ' '' ${x} ''${y} \\ $(id) `id`\nline two\r\t"
    "<script>alert(1)</script> 🐘 %h %% ${builtins.readFile /etc/passwd}"
)
SECRETS = {
    "mastodon": [
        "secret-key-base",
        "vapid-private-key",
        "vapid-public-key",
        "active-record-encryption-deterministic-key",
        "active-record-encryption-key-derivation-salt",
        "active-record-encryption-primary-key",
    ],
    "peertube": ["secret", "initial-root-password"],
    "pixelfed": ["app-key"],
}
BUCKETS = {"mastodon": ["media"], "peertube": ["streaming-playlists", "videos"], "pixelfed": ["media"]}


def instance(operator: str, deployment: str, application: str, **changes: Any) -> dict[str, Any]:
    """One application instance; *changes* replace fields."""
    name = f"{operator}_{deployment}_{application}"
    secrets = f"{SECRETS_ROOT}/{name}"
    return {
        "id": name,
        "operator": operator,
        "operatorDisplayName": operator.capitalize(),
        "deployment": deployment,
        "environment": "lab",
        "application": application,
        "moduleVersion": "1",
        "domain": f"{deployment}.{operator}.fedi.test",
        "contact": f"{operator}@example.org",
        "settings": {},
        "nixosOptions": {},
        "database": {
            "host": "10.99.0.10",
            "port": 5432,
            "name": name,
            "user": name,
            "passwordFile": f"{secrets}/database-password",
        },
        "objectStorage": {
            "endpoint": "http://10.99.0.1:3900",
            "region": "garage",
            "accessKeyId": "GK000000000000000000000000",
            "secretAccessKeyFile": f"{secrets}/s3-secret-key",
            "buckets": {
                bucket: f"{operator}--{deployment}--{application}--{bucket}" for bucket in BUCKETS.get(application, [])
            },
        },
        "secretFiles": {secret: f"{secrets}/{secret}" for secret in SECRETS.get(application, [])},
        "secretsRevision": 1,
        **changes,
    }


def machine(name: str, *instances: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One machine; *changes* replace fields."""
    return {
        "hostName": name,
        "system": "x86_64-linux",
        "address": "10.99.1.10",
        "prefixLength": 16,
        "gateway": "10.99.0.1",
        "nameservers": ["10.99.0.11"],
        "authorizedKeys": ["ssh-ed25519 AAAAC3Nz controller"],
        "instances": list(instances),
        **changes,
    }


def fleet(*machines: dict[str, Any]) -> dict[str, Any]:
    """A fleet file's content."""
    return {"version": 1, "machines": {entry["hostName"]: entry for entry in machines}}


def example() -> dict[str, Any]:
    """Two machines: Mastodon alone, PeerTube and Pixelfed together."""
    return fleet(
        machine("vm-a", instance("alice", "social", "mastodon")),
        machine("vm-b", instance("bob", "video", "peertube"), instance("carol", "pics", "pixelfed")),
    )
