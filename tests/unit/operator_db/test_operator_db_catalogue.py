# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import (
    Application,
    Bucket,
    Secret,
    load_catalogue,
    validate_settings,
)

GOOD = """
version = 1
name = "dummy"
title = "Dummy"
[[secrets]]
name = "key"
kind = "hex"
bytes = 32
[minimum]
cores = 1
memory = 512
[health]
units = ["dummy.service"]
path = "/"
[settings]
type = "object"
additionalProperties = false
"""


def entry(root: Path, text: str) -> Path:
    (root / "dummy").mkdir()
    (root / "dummy" / "application.toml").write_text(text, encoding="utf-8")
    return root


def test_the_applications_of_the_collection(catalogue: dict[str, Application]) -> None:
    assert list(catalogue) == ["mastodon", "peertube", "pixelfed"]
    peertube = catalogue["peertube"]
    assert peertube.database is not None
    assert peertube.database.extensions == ("pg_trgm", "unaccent")
    assert peertube.buckets == (Bucket("streaming-playlists", True), Bucket("videos", True))
    assert peertube.health.units == ("peertube.service", "nginx.service")
    assert Secret("database-password", "alphanumeric", 40) in peertube.all_secrets
    assert Secret("s3-secret-key", "hex", 32) in peertube.all_secrets


def test_an_application_that_needs_nothing_has_no_secrets_of_backends(tmp_path: Path) -> None:
    application = load_catalogue(entry(tmp_path, GOOD))["dummy"]
    assert (application.database, application.buckets) == (None, ())
    assert application.all_secrets == (Secret("key", "hex", 32),)


@pytest.mark.parametrize("language", ["de", "pt-BR"])
def test_settings_may_be_set(catalogue: dict[str, Application], language: str) -> None:
    for application in catalogue.values():
        validate_settings(application, {"title": "'' ${x} ''", "language": language}, where="")


@pytest.mark.parametrize("language", ["german", "de\n", ""])
def test_other_settings_are_refused(catalogue: dict[str, Application], language: str) -> None:
    for application in catalogue.values():
        with pytest.raises(InvalidInput) as caught:
            validate_settings(application, {"language": language}, where="deployment x")
        assert str(caught.value) == (
            f"deployment x: settings.language: {language!r} does not match ^[a-z]{{2}}(-[A-Z]{{2}})?$ "
            "(Default language by ISO 639-1 with an optional region, such as de or pt-BR)"
        )


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('name = "dummy"', 'name = "other"', "name: 'other' must be the name of its folder and start with a letter"),
        ('title = "Dummy"\n', "", "document: 'title' is missing"),
        ('kind = "hex"', 'kind = "md5"', "secrets[0].kind: 'md5' is not one of: hex, base64, base64url, alphanumeric"),
        ("bytes = 32", "", "secrets[0]: a secret of kind hex needs a length. Set bytes to 8 to 4096"),
        ('name = "key"', 'name = "s3-secret-key"', "secrets[0].name: 's3-secret-key' is taken"),
        ("memory = 512", 'memory = "512"', "minimum.memory: '512' is not of type integer"),
        ("additionalProperties = false", "additionalProperties = true", "settings.additionalProperties: False was"),
        ('type = "object"', 'type = "object"\nrequired = 1', "settings: no JSON Schema: 1 is not of type 'array'"),
        ("[health]", "[health", "the catalogue entry cannot be read: "),
        ("[minimum]", "[maximum]\n[minimum]", "maximum: unknown field; known here: health, immutable, minimum"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, before: str, after: str, expected: str) -> None:
    assert GOOD.count(before) == 1
    with pytest.raises(InvalidInput, match=re.escape(f"{tmp_path}/dummy/application.toml: {expected}")):
        load_catalogue(entry(tmp_path, GOOD.replace(before, after)))


def test_an_empty_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there are no applications in the catalogue"):
        load_catalogue(tmp_path)
