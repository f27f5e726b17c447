# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names derived from the rows of the operator database: slugs, instance ids, database, bucket and key names."""

from __future__ import annotations

import hashlib
import re

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput

SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
SLUG_MAX = 32
# RFC 1035 section 2.3.4
LABEL_MAX = 63
# PostgreSQL: NAMEDATALEN - 1 bytes; Garage: S3 bucket name rules
POSTGRESQL_NAME_MAX = 63
BUCKET_NAME_MAX = 63

OWNER_TAG = "fediversity"
SECRETS_ROOT = "/var/lib/fediversity/secrets"


def check_slug(value: str, where: str, maximum: int = SLUG_MAX) -> str:
    """Return *value* if it is a slug (lower-case letters, digits, single hyphens inside).

    :raises InvalidInput: it is not.
    """
    if len(value) > maximum or not SLUG.match(value):
        raise InvalidInput(
            f"{value!r} is no valid name",
            where=where,
            hint=f"Use 1 to {maximum} lower-case letters, digits and single hyphens between them",
        )
    return value


def shorten(name: str, maximum: int, joint: str) -> str:
    """Cut *name* to *maximum* characters; a cut name ends in *joint* and 8 hex digits of its SHA-256."""
    if len(name) <= maximum:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: maximum - len(joint) - 8].rstrip('-_')}{joint}{digest}"


def instance_id(operator: str, deployment: str, application: str) -> str:
    """Identity of one application instance; unambiguous because slugs hold no underscore."""
    return f"{operator}_{deployment}_{application}"


def database_name(instance: str) -> str:
    """Name of the instance's PostgreSQL database and of the role that owns it."""
    return shorten(instance, POSTGRESQL_NAME_MAX, "_")


def bucket_name(instance: str, bucket: str) -> str:
    """Name (global alias) of one bucket of the instance; slugs hold no double hyphen, so it is unambiguous."""
    return shorten("--".join([*instance.split("_"), bucket]), BUCKET_NAME_MAX, "--")


def key_name(instance: str) -> str:
    """Name of the instance's access key; its prefix is our owner mark on Garage."""
    return f"{OWNER_TAG}/{instance}"


def access_key_id(database_uuid: str, instance: str, revision: int) -> str:
    """Access key id of the instance: no secret, so it is derived; a new secrets revision gives a new key.

    The form (``GK`` and 24 hex digits) is the one Garage makes and accepts in ImportKey.
    """
    return "GK" + hashlib.sha256(f"{database_uuid}:{instance}:{revision}".encode()).hexdigest()[:24]


def machine_tag(machine: str) -> str:
    """Proxmox tag that identifies the virtual machine of *machine*, whatever its VMID, node or name."""
    return f"{OWNER_TAG}-machine-{machine}"


def secret_ref(instance: str, secret: str) -> str:
    """Reference of a secret in the operator database."""
    return f"{instance}/{secret}"


def secret_path(ref: str) -> str:
    """Where the secret of reference *ref* lies on its machine."""
    return f"{SECRETS_ROOT}/{ref}"
