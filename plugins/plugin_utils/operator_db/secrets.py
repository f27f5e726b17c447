# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The secret store: generated once, encrypted at rest in the operator database, fetched by reference.

Ciphertexts are Fernet tokens (https://github.com/fernet/spec). The key never touches the database; every row names the
key that it was encrypted with by the first 16 hex digits of the key's SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied, InvalidInput, NotFound
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db import schema
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import reading, writing
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.secret_kinds import (
    check_kind,
    derive,
    generate,
)

try:
    from cryptography.fernet import Fernet, InvalidToken, MultiFernet
    from sqlalchemy import Connection, Engine, Row, delete, func, select, tuple_, update
    from sqlalchemy.dialects import postgresql, sqlite
except ImportError:
    pass  # libraries.require() reports it before any use

KEY_HINT = "Set FEDIVERSITY_SECRET_KEY_FILE (or FEDIVERSITY_SECRET_KEY) to the key that the secrets were encrypted with"
# pairs of (owner, name) in one IN clause: well below SQLite's limit of 32766 parameters
CHUNK = 5000


@dataclass(frozen=True)
class SecretSpec:
    """One secret that has to exist.

    :param ref: ``<instance id>/<secret name>``.
    :param kind: see secret_kinds.KINDS.
    :param bytes: random bytes (hex, base64, base64url) or characters (alphanumeric); None for the other kinds.
    :param source: reference of the secret that this one is computed from (kind vapid-public).
    """

    ref: str
    kind: str
    bytes: int | None = None
    source: str | None = None


def load_keys(key: str | None, file: str | None) -> tuple[bytes, ...]:
    """Return the Fernet keys: of *key* (separated by commas or white space), else of *file* (one per line, # comments).

    The first key encrypts, all of them decrypt.

    :raises InvalidInput: there is none, or one is malformed; the message never shows a key.
    """
    if key:
        words, where = key.replace(",", " ").split(), "FEDIVERSITY_SECRET_KEY"
    elif file:
        where = file
        try:
            lines = Path(file).read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise InvalidInput(f"cannot read the secret key file: {reason}", where=where, hint=KEY_HINT) from None
        words = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    else:
        raise InvalidInput("no key for the secrets is given", hint=KEY_HINT)
    if not words:
        raise InvalidInput("it holds no key for the secrets", where=where, hint=KEY_HINT)
    for number, word in enumerate(words, start=1):
        try:
            Fernet(word)
        except ValueError:
            raise InvalidInput(
                f"key {number} is no Fernet key (32 bytes in URL-safe base64)", where=where, hint=KEY_HINT
            ) from None
    return tuple(word.encode() for word in words)


class SecretStore:
    """Reads and creates secrets; holds the keys, so keep it out of anything that is printed."""

    def __init__(self, engine: Engine, keys: Sequence[bytes]) -> None:
        self._engine = engine
        self._fernet = MultiFernet([Fernet(key) for key in keys])
        self._key_id = _key_id(keys[0])
        self._known_key_ids = frozenset(map(_key_id, keys))

    def missing(self, specs: Sequence[SecretSpec]) -> tuple[str, ...]:
        """The references of *specs* that have no secret yet, in their order."""
        _check(specs)
        with reading(self._engine) as connection:
            stored = _select(connection, [spec.ref for spec in specs])
        return tuple(spec.ref for spec in specs if spec.ref not in stored)

    def ensure(self, specs: Sequence[SecretSpec]) -> tuple[str, ...]:
        """Create what is missing and return the references that were created, in the order of *specs*.

        One transaction: of two parallel runs the second finds what the first has made. Existing secrets never change.

        :raises InvalidInput: an unknown kind, a wrong length or source; nothing was created.
        """
        if not self.missing(specs):
            return ()
        created: set[str] = set()
        with writing(self._engine) as connection:
            stored = _select(connection, [spec.ref for spec in specs])
            fresh = [spec for spec in specs if spec.ref not in stored]
            independent = {spec: generate(spec.kind, spec.bytes) for spec in fresh if spec.source is None}
            created |= self._insert(connection, independent)
            derived = [spec for spec in fresh if spec.source is not None]
            sources = self._get(connection, [str(spec.source) for spec in derived])
            computed = {spec: derive(spec.kind, sources[str(spec.source)]) for spec in derived}
            created |= self._insert(connection, computed)
        return tuple(spec.ref for spec in specs if spec.ref in created)

    def get(self, refs: Sequence[str]) -> dict[str, str]:
        """Return the secrets by reference, with one query.

        :raises NotFound: some do not exist (all of them are named).
        :raises Denied: one was encrypted with a key that is not given.
        """
        with reading(self._engine) as connection:
            return self._get(connection, refs)

    def find(self, refs: Sequence[str]) -> dict[str, str]:
        """As get, but secrets that do not exist are left out."""
        with reading(self._engine) as connection:
            return {ref: self._decrypt(row) for ref, row in _select(connection, refs).items()}

    def put(self, ref: str, kind: str, value: str) -> None:
        """Store a secret that somebody else made, in place of the one that may be there."""
        owner, name = _split(ref)
        table = schema.secrets
        insert = (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(table)
        fields = {"kind": kind, "ciphertext": self._encrypt(value), "key_id": self._key_id}
        statement = insert.values(owner=owner, name=name, created_at=datetime.now(UTC), **fields).on_conflict_do_update(
            index_elements=["owner", "name"], set_={**fields, "revision": table.c.revision + 1}
        )
        with writing(self._engine) as connection:
            connection.execute(statement)

    def forget(self, ref: str) -> None:
        """Delete a secret; nothing happens if there is none."""
        owner, name = _split(ref)
        table = schema.secrets
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.owner == owner, table.c.name == name))

    def outdated(self) -> int:
        """How many secrets rewrap would encrypt again."""
        table = schema.secrets
        count = select(func.count()).select_from(table).where(table.c.key_id != self._key_id)
        with reading(self._engine) as connection:
            return connection.execute(count).scalar_one()

    def rewrap(self) -> int:
        """Encrypt again, with the first key, what was encrypted with another one; return how many."""
        table = schema.secrets
        with writing(self._engine) as connection:
            rows = connection.execute(select(table).where(table.c.key_id != self._key_id)).all()
            for row in rows:
                ciphertext = self._encrypt(self._decrypt(row))
                changed = update(table).where(table.c.id == row.id)
                connection.execute(changed.values(ciphertext=ciphertext, key_id=self._key_id))
        return len(rows)

    def _get(self, connection: Connection, refs: Sequence[str]) -> dict[str, str]:
        rows = _select(connection, refs)
        absent = [ref for ref in dict.fromkeys(refs) if ref not in rows]
        if absent:
            raise NotFound(
                f"the operator database has no secret {', '.join(absent)}",
                hint="Create it first (module fediversity.hosting.operator_secrets)",
            )
        return {ref: self._decrypt(row) for ref, row in rows.items()}

    def _insert(self, connection: Connection, values: Mapping[SecretSpec, str]) -> set[str]:
        """Insert and return the references that were not there (somebody else may have been faster)."""
        if not values:
            return set()
        table = schema.secrets
        insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
        statement = insert.on_conflict_do_nothing(index_elements=["owner", "name"]).returning(
            table.c.owner, table.c.name
        )
        now = datetime.now(UTC)
        rows = [
            dict(zip(("owner", "name"), _split(spec.ref), strict=True))
            | {"kind": spec.kind, "ciphertext": self._encrypt(value), "key_id": self._key_id, "created_at": now}
            for spec, value in values.items()
        ]
        return {f"{owner}/{name}" for owner, name in connection.execute(statement, rows)}

    def _encrypt(self, value: str) -> str:
        return self._fernet.encrypt(value.encode()).decode()

    def _decrypt(self, row: Row[tuple[object, ...]]) -> str:
        ref = f"{row.owner}/{row.name}"
        if row.key_id not in self._known_key_ids:
            raise Denied(
                f"the secret was encrypted with the key {row.key_id}, which is not given", where=ref, hint=KEY_HINT
            )
        try:
            return self._fernet.decrypt(row.ciphertext).decode()
        except InvalidToken:
            raise Denied(
                "the secret's ciphertext was damaged", where=ref, hint="Restore the operator database from a backup"
            ) from None


def throw_away_values(refs: Sequence[str]) -> dict[str, str]:
    """Throw-away values for secrets that check mode must not create; 64 hex digits fit the rules of every backend."""
    return {ref: generate("hex", 32) for ref in refs}


def _check(specs: Sequence[SecretSpec]) -> None:
    for spec in specs:
        _split(spec.ref)
        check_kind(spec.kind, spec.bytes, spec.source, spec.ref)


def _select(connection: Connection, refs: Sequence[str]) -> dict[str, Row[tuple[object, ...]]]:
    table = schema.secrets
    pairs = [_split(ref) for ref in dict.fromkeys(refs)]
    found = {}
    for start in range(0, len(pairs), CHUNK):
        wanted = tuple_(table.c.owner, table.c.name).in_(pairs[start : start + CHUNK])
        for row in connection.execute(select(table).where(wanted)):
            found[f"{row.owner}/{row.name}"] = row
    return found


def _split(ref: str) -> tuple[str, str]:
    owner, slash, name = ref.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise InvalidInput(f"{ref!r} is no secret reference", hint="Use <instance id>/<secret name>")
    return owner, name


def _key_id(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:16]
