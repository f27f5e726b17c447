# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Admin tokens: made once, replaced in time, never lost, and nobody locks himself out."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied, Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.arguments import desired_tokens
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    CONTRADICTION,
    NEVER,
    DesiredBucket,
    Permission,
    Quotas,
    expiration_from,
    instant,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.scopes import PRESETS
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.tokens import DesiredToken, in_days
from garage_support import Cluster, actions, key, result

RUN = "fediversity/run"
FUTURE, PAST = "2099-01-01T00:00:00.000Z", "2020-01-01T00:00:00.000Z"


@pytest.fixture
def token(tmp_path: Path) -> Callable[..., DesiredToken]:
    def make(name: str = RUN, *, scope: tuple[str, ...] | None = ("ListKeys",), **changes: Any) -> DesiredToken:
        return DesiredToken(name, scope, **{"token_file": str(tmp_path / name.rpartition("/")[2]), **changes})

    return make


def rows(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """The tokens of the table by name."""
    found = [row for row in cluster.client().get("ListAdminTokens") if row["id"]]
    assert len({row["name"] for row in found}) == len(found)
    return {row["name"]: row for row in found}


def use(cluster: Cluster, wanted: DesiredToken) -> None:
    cluster.token = Path(str(wanted.token_file)).read_text(encoding="ascii")


def age(cluster: Cluster, name: str, days: float) -> None:
    """Let the token of *name* have so many days left."""
    cluster.client().post("UpdateAdminToken", {"expiration": in_days(days)}, id=rows(cluster)[name]["id"])


def test_a_token_is_made_written_once_and_works(cluster: Cluster, token: Callable[..., DesiredToken]) -> None:
    wanted = token(expiration=FUTURE)
    predicted = cluster.run_tokens(wanted, check=True)
    assert rows(cluster) == {}
    run = cluster.run_tokens(wanted)
    assert not run["failed"], run["msg"]
    assert (actions(predicted), predicted["diff"]) == (actions(run), run["diff"])
    file = Path(str(wanted.token_file))
    secret = file.read_text(encoding="ascii")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret.startswith(result(run, RUN)["id"])
    assert (rows(cluster)[RUN]["scope"], expiration_from(rows(cluster)[RUN])) == (["ListKeys"], FUTURE)
    again = cluster.run_tokens(wanted)
    assert not again["changed"]
    assert cluster.calls == ["ListAdminTokens"]
    assert secret not in json.dumps([predicted, run, again])
    assert file.read_text(encoding="ascii") == secret
    use(cluster, wanted)
    assert cluster.client().get("ListKeys") == []
    with pytest.raises(Denied):
        cluster.client().get("ListBuckets")


def test_scope_and_expiration_are_changed_or_left(cluster: Cluster, token: Callable[..., DesiredToken]) -> None:
    cluster.run_tokens(token())
    first = rows(cluster)[RUN]["id"]
    for wanted, scope, end in (
        (token(scope=("ListBuckets", "ListKeys")), ["ListBuckets", "ListKeys"], None),
        (token(scope=None, expiration=FUTURE), ["ListBuckets", "ListKeys"], FUTURE),
        (token(scope=("*",)), ["*"], FUTURE),
        (DesiredToken(RUN, expiration=NEVER), ["*"], None),
    ):
        run = cluster.run_tokens(wanted)
        assert (run["changed"], run["failed"]) == (True, False)
        assert (rows(cluster)[RUN]["scope"], expiration_from(rows(cluster)[RUN])) == (scope, end or NEVER)
        assert not cluster.run_tokens(wanted)["changed"]
    assert rows(cluster)[RUN]["id"] == first


def test_an_expired_token_is_refused_until_told(cluster: Cluster, token: Callable[..., DesiredToken]) -> None:
    cluster.run_tokens(token(expiration=PAST))
    run = cluster.run_tokens(token())
    assert f"the token expired at {PAST}" in result(run, RUN)["msg"]
    assert not cluster.run_tokens(token(expiration=FUTURE))["failed"]
    assert not rows(cluster)[RUN]["expired"]


def test_a_token_is_replaced_in_time_and_its_predecessor_lives_on(
    cluster: Cluster, token: Callable[..., DesiredToken]
) -> None:
    wanted = token(scope=PRESETS["tokens"], lifetime=90)
    cluster.run_tokens(wanted)
    first = rows(cluster)[RUN]
    assert in_days(89) < instant(first["expiration"]) <= in_days(90)
    age(cluster, RUN, 31)
    assert not cluster.run_tokens(wanted)["changed"]
    age(cluster, RUN, 29)
    use(cluster, wanted)
    predicted = cluster.run_tokens(wanted, check=True)
    run = cluster.run_tokens(wanted)
    assert not run["failed"], run["msg"]
    assert predicted["diff"] == run["diff"]
    assert run["diff"]["after"][RUN]["replaces"] == [first["id"]]
    now = rows(cluster)
    assert (now[f"{RUN} (old)"]["id"], now[f"{RUN} (old)"]["expired"]) == (first["id"], False)
    assert now[RUN]["id"] != first["id"]
    # who still has the old one, as we, can go on; who reads the file has the new one
    assert not cluster.run_tokens(wanted)["changed"]
    use(cluster, wanted)
    assert cluster.token.startswith(now[RUN]["id"])
    assert not cluster.run_tokens(wanted)["changed"]
    age(cluster, f"{RUN} (old)", -1)
    assert cluster.run_tokens(wanted)["diff"]["after"][RUN]["deletes"] == [first["id"]]
    assert set(rows(cluster)) == {RUN}


def test_a_token_without_end_that_gets_a_lifetime_is_replaced(
    cluster: Cluster, token: Callable[..., DesiredToken]
) -> None:
    cluster.run_tokens(token())
    assert not cluster.run_tokens(token(lifetime=30))["failed"]
    assert instant(rows(cluster)[f"{RUN} (old)"]["expiration"]) <= in_days(10)


@pytest.mark.parametrize("endpoint", ["CreateAdminToken", "UpdateAdminToken"])
@pytest.mark.parametrize("rotates", [False, True])
def test_a_run_that_ends_anywhere_is_repaired_by_the_next(
    cluster: Cluster, token: Callable[..., DesiredToken], endpoint: str, rotates: bool
) -> None:
    wanted = token(lifetime=90)
    if rotates:
        cluster.run_tokens(wanted)
        age(cluster, RUN, 1)
    cluster.lost[endpoint] = 1
    assert cluster.run_tokens(wanted)["failed"]
    repaired = cluster.run_tokens(wanted)
    assert not repaired["failed"], repaired["msg"]
    assert not cluster.run_tokens(wanted)["changed"]
    names = {RUN, f"{RUN} (old)"} if rotates else {RUN}
    assert set(rows(cluster)) == names
    assert not rows(cluster)[RUN]["expired"]
    use(cluster, wanted)
    assert cluster.client().get("ListKeys") == []


def test_a_token_whose_file_is_lost_is_refused(cluster: Cluster, token: Callable[..., DesiredToken]) -> None:
    wanted = token()
    cluster.run_tokens(wanted)
    Path(str(wanted.token_file)).unlink()
    run = cluster.run_tokens(wanted)
    assert "its file does not" in result(run, RUN)["msg"]
    cluster.run_tokens(DesiredToken(RUN, present=False))
    assert not cluster.run_tokens(wanted)["failed"]


@pytest.mark.parametrize("content", ["sentinel", "a" * 24 + "." + "b" * 43])
def test_a_file_with_something_else_is_refused(
    cluster: Cluster, token: Callable[..., DesiredToken], content: str
) -> None:
    wanted = token()
    Path(str(wanted.token_file)).write_text(content, encoding="ascii")
    run = cluster.run_tokens(wanted)
    assert "holds something else" in result(run, RUN)["msg"]
    assert content not in json.dumps(run)
    assert rows(cluster) == {}


def test_a_file_that_others_may_read_is_protected(cluster: Cluster, token: Callable[..., DesiredToken]) -> None:
    wanted = token()
    cluster.run_tokens(wanted)
    Path(str(wanted.token_file)).chmod(0o640)
    assert cluster.run_tokens(wanted)["changed"]
    assert stat.S_IMODE(Path(str(wanted.token_file)).stat().st_mode) == 0o600
    assert not cluster.run_tokens(wanted)["changed"]


def test_the_token_in_use_is_neither_deleted_nor_narrowed_nor_ended(
    cluster: Cluster, token: Callable[..., DesiredToken]
) -> None:
    wanted = token(scope=("*",))
    cluster.run_tokens(wanted)
    before = rows(cluster)
    use(cluster, wanted)
    for bad, words in (
        (DesiredToken(RUN, present=False), "it is the token in use"),
        (
            token(scope=("ListKeys", "ListAdminTokens")),
            "would lose CreateAdminToken, DeleteAdminToken",
        ),
        (token(scope=None, expiration=PAST), "would expire at once"),
    ):
        run = cluster.run_tokens(bad)
        assert actions(run) == {RUN: "refused"}
        assert words in result(run, RUN)["msg"]
        assert rows(cluster) == before
    assert not cluster.run_tokens(token(scope=PRESETS["tokens"]))["failed"]
    cluster.token = "configured"
    assert not cluster.run_tokens(token())["failed"]


def test_two_tokens_of_one_name_are_refused_and_absent_deletes_both(
    cluster: Cluster, token: Callable[..., DesiredToken]
) -> None:
    cluster.run_tokens(token())
    cluster.client().post("CreateAdminToken", {"name": RUN})
    assert "2 tokens have this name" in result(cluster.run_tokens(token()), RUN)["msg"]
    assert actions(cluster.run_tokens(DesiredToken(RUN, present=False))) == {RUN: "delete"}
    assert rows(cluster) == {}
    assert not cluster.run_tokens(DesiredToken(RUN, present=False))["changed"]


def test_tokens_of_others_are_left_alone(cluster: Cluster, token: Callable[..., DesiredToken]) -> None:
    for name in ("somebody", "somebody (new)", "run"):
        cluster.client().post("CreateAdminToken", {"name": name, "expiration": PAST})
    before = rows(cluster)
    cluster.run_tokens(token(), DesiredToken("fediversity/none", present=False))
    assert {name: row for name, row in rows(cluster).items() if name in before} == before


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (DesiredToken("run", ("ListKeys",)), "Name it fediversity/"),
        (DesiredToken("run", present=False), "Name it fediversity/"),
        (DesiredToken("fediversity/x (new)"), "the end of the name"),
        (DesiredToken("fediversity/x", ("ListKey", "ListKeys")), "scope: 'ListKey': no endpoint"),
        (DesiredToken("fediversity/x", ()), "scope: the scope is empty"),
        (DesiredToken("fediversity/x", ("ListKeys",)), "scope (or presets) and token_file are needed"),
        (DesiredToken("fediversity/x", None, token_file="/tmp/none"), "scope (or presets) and token_file are needed"),
        (DesiredToken("fediversity/x", ("ListKeys",), "soon"), "expiration: 'soon' is no instant"),
        (DesiredToken("fediversity/x", ("ListKeys",), CONTRADICTION), "exclude each other"),
        (DesiredToken("fediversity/x", ("ListKeys",), NEVER, 5), "lifetime: it excludes"),
        (DesiredToken("fediversity/x", ("ListKeys",), None, 0), "lifetime: 0 is no number of days"),
        (DesiredToken("fediversity/x", ("ListKeys",), token_file="none"), "not absolute"),
    ],
)
def test_bad_items_are_refused_alone(
    cluster: Cluster, token: Callable[..., DesiredToken], wanted: DesiredToken, words: str
) -> None:
    run = cluster.run_tokens(wanted, token())
    assert words in result(run, wanted.name)["msg"]
    assert f"token {wanted.name}" in result(run, wanted.name)["msg"]
    assert set(rows(cluster)) == {RUN}


def test_items_that_are_given_twice_or_share_a_file_are_refused(
    cluster: Cluster, token: Callable[..., DesiredToken]
) -> None:
    file = token().token_file
    run = cluster.run_tokens(
        token(), token("fediversity/two", token_file=file), token("fediversity/x"), token("fediversity/x")
    )
    assert set(actions(run).values()) == {"refused"}
    assert rows(cluster) == {}


def test_a_garage_that_goes_away_ends_the_run(cluster: Cluster, token: Callable[..., DesiredToken]) -> None:
    cluster.cut_after = 1
    run = cluster.run_tokens(token(), token("fediversity/two"))
    assert run["failed"]
    assert cluster.calls == ["ListAdminTokens", "CreateAdminToken"]
    cluster.cut_after = 0
    with pytest.raises(Unreachable):
        cluster.run_tokens(token())


def test_a_preset_is_all_that_its_task_needs(cluster: Cluster, tmp_path: Path) -> None:
    options = [
        {
            "name": f"fediversity/{preset}",
            "scope": None,
            "presets": [preset],
            "expiration": None,
            "never_expires": True,
            "lifetime": None,
            "token_file": str(tmp_path / preset),
            "state": "present",
        }
        for preset in PRESETS
    ]
    made = desired_tokens(options)
    assert not cluster.run_tokens(*made)["failed"]
    by_name = {wanted.name.removeprefix("fediversity/"): wanted for wanted in made}

    right = ("fediversity/one", Permission(True, True, True))
    bucket = DesiredBucket("media", quotas=Quotas(5), aliases=("other",), permissions=(right,), local_aliases=())
    use(cluster, by_name["run"])
    for wanted in (bucket, DesiredBucket("media", aliases=(), permissions=())):
        run = cluster.run(key(expiration=FUTURE), wanted)
        assert not run["failed"], run["msg"]
    use(cluster, by_name["keys"])
    run = cluster.run(key("two", 2, create_bucket=True, secret_file=str(tmp_path / "two")))
    assert not run["failed"], run["msg"]
    use(cluster, by_name["collect"])
    gone = DesiredBucket("media", id=cluster.info("media")["id"], present=False)
    run = cluster.run(gone, key(present=False), key("two", 2, present=False))
    assert not run["failed"], run["msg"]
    use(cluster, by_name["tokens"])
    run = cluster.run_tokens(*made, DesiredToken("fediversity/run", present=False, token_file=None))
    assert "given 2 times" in run["msg"]
    run = cluster.run_tokens(DesiredToken("fediversity/run", present=False))
    assert not run["failed"], run["msg"]
