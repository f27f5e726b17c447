# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any desired tokens on any table of tokens, from any token in use: as predicted, and nobody is locked out."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import NEVER
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.scopes import TOKENS
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.tokens import DesiredToken
from garage_support import Cluster
from hypothesis import given, settings
from hypothesis import strategies as st

OURS = ("fediversity/a", "fediversity/b")
PAST, FUTURE = "2020-01-01T00:00:00.000Z", "2099-01-01T00:00:00.000Z"
# names that a token of this or that kind has
ENDINGS = ("", "", " (new)", " (old)")
SCOPES = (("ListKeys",), TOKENS, ("*",))


@dataclass(frozen=True)
class ExistingToken:
    name: str
    scope: tuple[str, ...]
    expiration: str | None
    in_file: bool
    used: bool


TOKEN_ROWS = st.builds(
    ExistingToken,
    st.sampled_from([*(name + ending for name in OURS for ending in ENDINGS), "somebody"]),
    st.sampled_from(SCOPES),
    st.sampled_from([None, None, PAST, FUTURE]),
    st.booleans(),
    st.booleans(),
)
WISHES = st.builds(
    DesiredToken,
    st.sampled_from(OURS),
    st.sampled_from([None, *SCOPES]),
    st.sampled_from([None, None, NEVER, PAST, FUTURE]),
    st.sampled_from([None, None, 90]),
    st.sampled_from([None, "file", "file"]),
    st.sampled_from([True, True, False]),
)


def outline(run: dict[str, Any]) -> list[tuple[str, str, bool, bool]]:
    return [(item["name"], item["action"], item["changed"], item["failed"]) for item in run["results"]]


@settings(max_examples=150, deadline=None)
@given(st.lists(TOKEN_ROWS, max_size=4), st.lists(WISHES, max_size=2, unique_by=lambda wanted: wanted.name))
def test_converges_as_predicted_and_locks_nobody_out(existing: list[ExistingToken], wishes: list[DesiredToken]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        wanted = [placed(wish, Path(directory)) for wish in wishes]
        cluster, files = build(existing, Path(directory))
        before = copy.deepcopy(cluster.store.tables)
        predicted = cluster.run_tokens(*wanted, check=True)
        assert cluster.store.tables == before
        assert contents(Path(directory)) == files

        first = cluster.run_tokens(*wanted)
        assert outline(first) == outline(predicted)
        assert first["diff"] == predicted["diff"]
        after = copy.deepcopy(cluster.store.tables)
        second = cluster.run_tokens(*wanted)
        assert not second["changed"]
        assert cluster.store.tables == after

        untouched(before, after, {item["name"] for item in first["results"] if item["changed"]})
        for item in (item for item in wanted if item.name not in failed(first)):
            reached(item, cluster)
        secrets = [text for text in contents(Path(directory)).values() if text in repr([predicted, first, second])]
        assert secrets == []
        cluster.store.close()


def placed(wish: DesiredToken, directory: Path) -> DesiredToken:
    file = None if wish.token_file is None else str(directory / wish.name.rpartition("/")[2])
    return DesiredToken(wish.name, wish.scope, wish.expiration, wish.lifetime, file, wish.present)


def build(existing: list[ExistingToken], directory: Path) -> tuple[Cluster, dict[str, str]]:
    cluster = Cluster()
    configured = cluster.client()
    for row in existing:
        body = {"name": row.name, "scope": list(row.scope)}
        body |= {} if row.expiration is None else {"expiration": row.expiration}
        made = configured.post("CreateAdminToken", body)
        if row.in_file and row.name != "somebody":
            file = directory / row.name.rpartition("/")[2].partition(" ")[0]
            file.write_text(made["secretToken"], encoding="ascii")
            file.chmod(0o600)
        if row.used and row.scope != ("ListKeys",) and row.expiration != PAST:
            cluster.token = made["secretToken"]
    return cluster, contents(directory)


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="ascii") for path in directory.iterdir()}


def failed(run: dict[str, Any]) -> set[str]:
    return {item["name"] for item in run["results"] if item["failed"]}


def untouched(before: dict[str, Any], after: dict[str, Any], changed: set[str]) -> None:
    """Tokens that belong to no changed item are the same."""
    for token_id, row in before["tokens"].items():
        if not any(row["name"].startswith(name) for name in changed):
            assert after["tokens"][token_id] == row


def reached(item: DesiredToken, cluster: Cluster) -> None:
    rows = {token_id: row for token_id, row in cluster.store.tables["tokens"].items() if row is not None}
    live = [(token_id, row) for token_id, row in rows.items() if row["name"] == item.name]
    unwritten = [token_id for token_id, row in rows.items() if row["name"] == f"{item.name} (new)"]
    assert unwritten == [token_id for token_id in unwritten if cluster.token.startswith(token_id)]
    if not item.present:
        assert live == []
        return
    ((token_id, row),) = live
    if item.scope is not None:
        assert set(row["scope"]) == set(item.scope)
    if item.expiration is not None:
        assert row["expiration"] == {NEVER: None, PAST: 1577836800000, FUTURE: 4070908800000}[item.expiration]
    if item.token_file is not None:
        file = Path(item.token_file)
        assert file.read_text(encoding="ascii").startswith(token_id)
        assert file.stat().st_mode & 0o777 == 0o600
