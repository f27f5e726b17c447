# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The catalogue: what each application needs, read from nix/applications/<name>/application.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.names import SLUG, SLUG_MAX, secret_ref
from ansible_collections.fediversity.hosting.plugins.plugin_utils.documents import MEANING, schema_problems
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.secret_kinds import KINDS, check_kind
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.secrets import SecretSpec

try:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
except ImportError:
    pass  # libraries.require() reports it before any use

APPLICATIONS = Path(__file__).parents[2] / "nix" / "applications"

DATABASE_PASSWORD = "database-password"
S3_SECRET_KEY = "s3-secret-key"

_SLUG = {"type": "string", "pattern": f"^{SLUG.pattern}", "maxLength": SLUG_MAX, MEANING: "a slug"}
_COUNT = {"type": "integer", "minimum": 1}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["version", "name", "title", "minimum", "health", "settings"],
    "properties": {
        "version": {"const": 1},
        "name": _SLUG,
        "title": {"type": "string", "minLength": 1},
        "immutable": {"type": "array", "items": {"enum": ["domain"]}},
        "needs": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "database": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"extensions": {"type": "array", "items": {"type": "string"}}},
                },
                "buckets": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["name", "public"],
                        "properties": {"name": _SLUG, "public": {"type": "boolean"}},
                    },
                },
            },
        },
        "secrets": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "kind"],
                "properties": {
                    "name": _SLUG | {"maxLength": 64},
                    "kind": {"enum": list(KINDS)},
                    "bytes": _COUNT,
                    "from": {"type": "string"},
                },
            },
        },
        "minimum": {
            "type": "object",
            "additionalProperties": False,
            "required": ["cores", "memory"],
            "properties": {"cores": _COUNT, "memory": _COUNT},
        },
        "health": {
            "type": "object",
            "additionalProperties": False,
            "required": ["units", "path"],
            "properties": {
                "units": {"type": "array", "items": {"type": "string"}},
                "path": {"type": "string", "pattern": "^/"},
            },
        },
        "settings": {
            "type": "object",
            "required": ["type", "additionalProperties"],
            "properties": {"type": {"const": "object"}, "additionalProperties": {"const": False}},
        },
    },
}


@dataclass(frozen=True)
class Database:
    """A PostgreSQL database of the instance's own."""

    extensions: tuple[str, ...]


@dataclass(frozen=True)
class Bucket:
    """A bucket of the instance's own; a public one can be read by anybody."""

    name: str
    public: bool


@dataclass(frozen=True)
class Secret:
    """A secret of every instance; ``source`` is the name of the secret that this one is computed from."""

    name: str
    kind: str
    bytes: int | None = None
    source: str | None = None


@dataclass(frozen=True)
class Minimum:
    """The smallest machine; ``memory`` in MiB."""

    cores: int
    memory: int


@dataclass(frozen=True)
class Health:
    """What must run and answer after a switch."""

    units: tuple[str, ...]
    path: str


@dataclass(frozen=True)
class Application:
    """One entry of the catalogue; ``settings`` is a JSON Schema (draft 2020-12) of what the operator may set."""

    name: str
    title: str
    immutable: tuple[str, ...]
    database: Database | None
    buckets: tuple[Bucket, ...]
    secrets: tuple[Secret, ...]
    minimum: Minimum
    health: Health
    settings: Mapping[str, Any]

    @property
    def all_secrets(self) -> tuple[Secret, ...]:
        """The application's own secrets and those that its database and buckets bring along."""
        database = () if self.database is None else (Secret(DATABASE_PASSWORD, "alphanumeric", 40),)
        # Garage's ImportKey wants 64 hex digits
        buckets = (Secret(S3_SECRET_KEY, "hex", 32),) if self.buckets else ()
        return (*self.secrets, *database, *buckets)


def secret_specs(application: Application, instance: str) -> tuple[SecretSpec, ...]:
    """What the secret store has to hold for one application instance."""
    return tuple(
        SecretSpec(
            secret_ref(instance, secret.name),
            secret.kind,
            secret.bytes,
            None if secret.source is None else secret_ref(instance, secret.source),
        )
        for secret in application.all_secrets
    )


def load_catalogue(directory: Path | None = None) -> dict[str, Application]:
    """Return the applications by name; *directory* holds one folder per application (this collection's if None).

    :raises InvalidInput: an entry is malformed; the message names file and key.
    """
    root = APPLICATIONS if directory is None else directory
    files = sorted(root.glob("*/application.toml"))
    if not files:
        raise InvalidInput("there are no applications in the catalogue", where=str(root))
    return {file.parent.name: _load(file) for file in files}


def validate_settings(application: Application, settings: Mapping[str, Any], where: str) -> None:
    """Check what an operator set.

    :raises InvalidInput: the application's schema refuses it.
    """
    problems = schema_problems(application.settings, settings, ("settings",))
    if problems:
        raise InvalidInput("; ".join(f"{problem.where}: {problem.message}" for problem in problems), where=where)


def _load(file: Path) -> Application:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"the catalogue entry cannot be read: {error}", where=str(file)) from error
    problems = [f"{problem.where}: {problem.message}" for problem in schema_problems(SCHEMA, content)]
    if not problems:
        problems = [*_semantic_problems(file, content)]
    if problems:
        raise InvalidInput("; ".join(problems), where=str(file))
    needs = content.get("needs", {})
    return Application(
        name=content["name"],
        title=content["title"],
        immutable=tuple(content.get("immutable", ())),
        database=Database(tuple(needs["database"].get("extensions", ()))) if "database" in needs else None,
        buckets=tuple(Bucket(bucket["name"], bucket["public"]) for bucket in needs.get("buckets", ())),
        secrets=tuple(
            Secret(secret["name"], secret["kind"], secret.get("bytes"), secret.get("from"))
            for secret in content.get("secrets", ())
        ),
        minimum=Minimum(**content["minimum"]),
        health=Health(tuple(content["health"]["units"]), content["health"]["path"]),
        settings=content["settings"],
    )


def _semantic_problems(file: Path, content: Mapping[str, Any]) -> list[str]:
    """What the schema cannot say."""
    problems = []
    if content["name"] != file.parent.name or not re.match("[a-z]", content["name"]):
        problems.append(f"name: {content['name']!r} must be the name of its folder and start with a letter")
    names = [secret["name"] for secret in content.get("secrets", ())]
    for number, secret in enumerate(content.get("secrets", ())):
        where = f"secrets[{number}]"
        if names.count(secret["name"]) > 1 or secret["name"] in (DATABASE_PASSWORD, S3_SECRET_KEY):
            problems.append(f"{where}.name: {secret['name']!r} is taken")
        if "from" in secret and secret["from"] not in names:
            problems.append(f"{where}.from: there is no secret {secret['from']!r}")
        try:
            check_kind(secret["kind"], secret.get("bytes"), secret.get("from"), where)
        except HostingError as error:
            problems.append(str(error))
    try:
        Draft202012Validator.check_schema(content["settings"])
    except SchemaError as error:
        problems.append(f"settings: no JSON Schema: {error.message}")
    return problems
