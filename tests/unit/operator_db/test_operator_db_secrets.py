# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied, InvalidInput, NotFound
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import Application, secret_specs
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db import database
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.references import references, resolve
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.secrets import (
    SecretSpec,
    SecretStore,
    load_keys,
)
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

KEY, OTHER_KEY = Fernet.generate_key(), Fernet.generate_key()
PASSWORD = SecretSpec("alice_social_mastodon/database-password", "alphanumeric", 40)
SHAPES = [
    (SecretSpec("a/hex", "hex", 32), r"[0-9a-f]{64}"),
    (SecretSpec("a/base64", "base64", 32), r"[A-Za-z0-9+/]{43}="),
    (SecretSpec("a/base64url", "base64url", 32), r"[A-Za-z0-9_-]{43}"),
    (SecretSpec("a/alphanumeric", "alphanumeric", 40), r"[A-Za-z0-9]{40}"),
    (SecretSpec("a/private", "vapid-private"), r"[A-Za-z0-9_-]{43}"),
    (SecretSpec("a/public", "vapid-public", source="a/private"), r"[A-Za-z0-9_-]{87}"),
]


@pytest.fixture
def store(engine: Engine) -> SecretStore:
    return SecretStore(engine, [KEY])


def test_secrets_have_their_kinds_shape_and_never_change(store: SecretStore) -> None:
    specs = [spec for spec, _shape in SHAPES]
    assert store.missing(specs) == store.ensure(specs) == tuple(spec.ref for spec in specs)
    values = store.get([spec.ref for spec in specs])
    for spec, shape in SHAPES:
        assert re.fullmatch(shape, values[spec.ref]), spec
    assert store.missing(specs) == store.ensure(specs) == ()
    assert store.get([spec.ref for spec in specs]) == values


def test_a_derived_secret_belongs_to_its_source(store: SecretStore) -> None:
    store.ensure([SHAPES[4][0]])
    store.ensure([SHAPES[5][0]])
    values = store.get(["a/private", "a/public"])
    number = int.from_bytes(base64.urlsafe_b64decode(values["a/private"] + "="), "big")
    point = base64.urlsafe_b64decode(values["a/public"] + "=")
    public = ec.derive_private_key(number, ec.SECP256R1()).public_key()
    assert ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point).public_numbers() == (
        public.public_numbers()
    )


def test_every_application_can_have_its_secrets(store: SecretStore, catalogue: dict[str, Application]) -> None:
    for name, application in catalogue.items():
        specs = secret_specs(application, f"alice_social_{name}")
        assert store.ensure(specs) == tuple(spec.ref for spec in specs)
        assert {ref.split("/")[1] for ref in store.get([spec.ref for spec in specs])} >= {
            "database-password",
            "s3-secret-key",
        }


ENSURE = """
import json, sys
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db import database, secrets
store = secrets.SecretStore(database.connect(sys.argv[1]), [sys.argv[2].encode()])
specs = [secrets.SecretSpec(f"parallel/{number}", "hex", 32) for number in range(300)]
print("ready", flush=True)
sys.stdin.readline()
created = store.ensure(specs)
print(json.dumps([created, store.get([spec.ref for spec in specs])]))
"""


def test_parallel_processes_agree(engine: Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", ENSURE, url, KEY.decode()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    processes = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _unused in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert all(values == outputs[0][1] for _created, values in outputs)
    assert sorted(ref for created, _values in outputs for ref in created) == sorted(outputs[0][1])


def test_secrets_at_rest_are_encrypted(sqlite_url: str, tmp_path: Path) -> None:
    engine = database.connect(sqlite_url)
    database.upgrade(engine)
    store = SecretStore(engine, [KEY])
    store.ensure([PASSWORD])
    value = store.get([PASSWORD.ref])[PASSWORD.ref].encode()
    engine.dispose()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("operator.db*"))
    assert b"database-password" in stored
    for form in (value, base64.b64encode(value).rstrip(b"="), value.hex().encode(), KEY):
        assert form not in stored


def test_keys_can_be_rotated(engine: Engine) -> None:
    SecretStore(engine, [KEY]).ensure([PASSWORD])
    value = SecretStore(engine, [KEY]).get([PASSWORD.ref])
    rotating = SecretStore(engine, [OTHER_KEY, KEY])
    assert rotating.get([PASSWORD.ref]) == value
    assert (rotating.outdated(), rotating.rewrap(), rotating.outdated()) == (1, 1, 0)
    assert SecretStore(engine, [OTHER_KEY]).get([PASSWORD.ref]) == value
    with pytest.raises(
        Denied, match=r"^alice_social_mastodon/database-password: the secret was encrypted with the key"
    ):
        SecretStore(engine, [KEY]).get([PASSWORD.ref])


def test_missing_secrets_are_all_named(store: SecretStore) -> None:
    with pytest.raises(NotFound) as caught:
        store.get(["a/one", "a/two"])
    assert str(caught.value) == (
        "the operator database has no secret a/one, a/two. "
        "Create it first (module fediversity.hosting.operator_secrets)"
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (SecretSpec("a/b", "md5", 32), "a/b: unknown kind of secret 'md5'"),
        (SecretSpec("a/b", "hex"), "a/b: a secret of kind hex needs a length"),
        (SecretSpec("a/b", "hex", 4), "a/b: a secret of kind hex needs a length"),
        (SecretSpec("a/b", "vapid-private", 4), "a/b: a secret of kind vapid-private has a fixed length"),
        (SecretSpec("a/b", "vapid-public"), "a/b: a secret of kind vapid-public is computed from another one"),
        (SecretSpec("a/b", "hex", 32, "a/c"), "a/b: a secret of kind hex is not computed from another one"),
        (SecretSpec("ab", "hex", 32), "'ab' is no secret reference"),
        (SecretSpec("a/b/c", "hex", 32), "'a/b/c' is no secret reference"),
    ],
)
def test_bad_specs_create_nothing(store: SecretStore, spec: SecretSpec, expected: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        store.ensure([PASSWORD, spec])
    assert str(caught.value).startswith(expected)
    assert store.missing([PASSWORD]) == (PASSWORD.ref,)


def test_keys_come_from_a_value_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the newest first\n{KEY.decode()}\n\n{OTHER_KEY.decode()}\n", encoding="ascii")
    assert load_keys(None, str(file)) == (KEY, OTHER_KEY)
    assert load_keys(f"{OTHER_KEY.decode()},{KEY.decode()}", str(file)) == (OTHER_KEY, KEY)


def test_bad_keys_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY.decode()}\nswordfish\n", encoding="ascii")
    hint = "Set FEDIVERSITY_SECRET_KEY_FILE (or FEDIVERSITY_SECRET_KEY) to the key that the secrets were encrypted with"
    with pytest.raises(InvalidInput) as caught:
        load_keys(None, str(file))
    assert str(caught.value) == f"{file}: key 2 is no Fernet key (32 bytes in URL-safe base64). {hint}"
    with pytest.raises(InvalidInput, match="no key for the secrets is given"):
        load_keys(None, None)
    with pytest.raises(InvalidInput, match="cannot read the secret key file: No such file or directory"):
        load_keys(None, str(tmp_path / "absent"))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(PLAIN)
def test_resolving_keeps_everything_but_references(structure: object) -> None:
    values = {ref: f"value of {ref}" for ref in references(structure)}
    resolved = resolve({"around": [structure, {"secret": "a/b"}]}, values | {"a/b": "value"})
    assert resolved["around"][1] == "value"
    if not values:
        assert resolved["around"][0] == structure


def test_only_the_exact_form_is_a_reference() -> None:
    structure = {"secret": "a/b", "other": 1, "list": [{"secret": ["a/b"]}, {"secret": 1}], "x": {"secret": "a/c"}}
    assert references(structure) == ["a/c"]
