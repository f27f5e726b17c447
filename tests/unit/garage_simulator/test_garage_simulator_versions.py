# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator as an older Garage, as one without a layout, and the rules of settings that it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lab.garage import api
from lab.garage.store import NEWEST, NO_LAYOUT, OLDEST, Store

TOKEN = "configured"
CORS = {"AllowedOrigin": ["*"], "AllowedMethod": ["GET"]}


def call(store: Store, endpoint: str, body: Any = None) -> tuple[int, Any]:
    path, _mark, query = endpoint.partition("?")
    raw = b"" if body is None else json.dumps(body).encode()
    request = api.Request("GET" if body is None else "POST", path, query, f"Bearer {TOKEN}", raw)
    reply = api.answer(store, TOKEN, request)
    return reply.status, json.loads(reply.body) if reply.content_type == "application/json" else reply.body


def test_an_older_server_drops_what_it_does_not_know() -> None:
    store = Store(version=OLDEST)
    assert call(store, "/v2/GetCurrentAdminTokenInfo")[0] == 400
    assert call(store, "/v2/GetClusterStatus")[1]["nodes"][0]["garageVersion"] == OLDEST
    _status, bucket = call(store, "/v2/CreateBucket", {"globalAlias": "media"})
    website = {"enabled": True, "indexDocument": "i", "routingRules": [{"Redirect": {}}]}
    body = {
        "corsRules": [CORS],
        "lifecycleRules": [{"Status": "x"}],
        "quotas": {"maxSize": 5},
        "websiteAccess": website,
    }
    status, answer = call(store, f"/v2/UpdateBucket?id={bucket['id']}", body)
    assert status == 200
    assert not {"corsRules", "lifecycleRules"} & {*answer, *bucket}
    assert answer["websiteConfig"] == {"indexDocument": "i", "errorDocument": None}
    assert answer["quotas"]["maxSize"] == 5
    row = store.tables["buckets"][bucket["id"]]
    assert (row["corsRules"], row["lifecycleRules"], row["website"]["routingRules"]) == (None, None, [])


@pytest.mark.parametrize(("version", "listed"), [(OLDEST, 1), (NEWEST, 0)])
def test_whether_a_key_without_permissions_is_listed(version: str, listed: int) -> None:
    store = Store(version=version)
    _status, bucket = call(store, "/v2/CreateBucket", {"globalAlias": "media"})
    _status, key = call(store, "/v2/CreateKey", {"name": "one"})
    alias = {"bucketId": bucket["id"], "accessKeyId": key["accessKeyId"], "localAlias": "mine"}
    assert len(call(store, "/v2/AddBucketAlias", alias)[1]["keys"]) == listed
    assert len(call(store, f"/v2/GetKeyInfo?id={key['accessKeyId']}")[1]["buckets"]) == listed
    assert len(call(store, "/v2/ListBuckets")[1][0]["localAliases"]) == 1


def test_without_a_layout_only_the_cluster_answers() -> None:
    store = Store(layout=NO_LAYOUT)
    assert call(store, "/health")[0] == 503
    assert call(store, "/v2/GetClusterHealth")[1]["status"] == "unavailable"
    status, error = call(store, "/v2/ListKeys")
    assert (status, error["code"], "Layout not ready" in error["message"]) == (500, "InternalError", True)
    node = call(store, "/v2/GetClusterStatus")[1]["nodes"][0]
    assert node["role"] is None
    role = {"id": node["id"], "zone": "z", "capacity": 10**9, "tags": []}
    for wrong in ({**role, "id": "x"}, {"id": node["id"]}, {"id": node["id"], "remove": True}):
        assert call(store, "/v2/UpdateClusterLayout", {"roles": [wrong]})[0] == 400
    assert call(store, "/v2/UpdateClusterLayout", {"roles": [role]})[1]["stagedRoleChanges"] == [role]
    assert call(store, "/v2/ApplyClusterLayout", {"version": 2})[0] == 500
    assert call(store, "/v2/ApplyClusterLayout", {"version": 1})[1]["layout"]["version"] == 1
    assert call(store, "/v2/ListKeys") == (200, [])
    assert call(store, "/health")[0] == 200
    assert call(store, "/v2/GetClusterStatus")[1]["nodes"][0]["role"] == {"zone": "z", "capacity": 10**9, "tags": []}


@pytest.mark.parametrize(
    ("field", "rule"),
    [
        ("corsRules", {**CORS, "AllowedMethod": ["G T"]}),
        ("corsRules", {**CORS, "AllowedHeader": ["a b"]}),
        ("corsRules", {"AllowedOrigin": ["*"]}),
        ("lifecycleRules", {"Status": "On"}),
        ("lifecycleRules", {"Status": "Enabled", "Expiration": {}}),
        ("lifecycleRules", {"Status": "Enabled", "Expiration": {"Days": 1, "Date": "2030-01-01"}}),
        ("lifecycleRules", {"Status": "Enabled", "Expiration": {"Date": "2030-01-01T05:00:00Z"}}),
        ("lifecycleRules", {"Status": "Enabled", "Filter": {"Prefix": "a", "ObjectSizeLessThan": 5}}),
        ("lifecycleRules", {"Status": "Enabled", "Filter": {"Prefix": "a", "And": {"ObjectSizeLessThan": 5}}}),
    ],
)
def test_rules_that_garage_refuses(field: str, rule: dict[str, Any]) -> None:
    store = Store()
    _status, bucket = call(store, "/v2/CreateBucket", {})
    status, error = call(store, f"/v2/UpdateBucket?id={bucket['id']}", {field: [rule]})
    assert (status, error["code"]) == (400, "InvalidRequest")
    assert store.tables["buckets"][bucket["id"]][field] is None


def test_a_filter_has_one_form() -> None:
    store = Store()
    _status, bucket = call(store, "/v2/CreateBucket", {})

    def kept(given: dict[str, Any]) -> Any:
        body = {"lifecycleRules": [{"Status": "Enabled", "Filter": given}]}
        answer = call(store, f"/v2/UpdateBucket?id={bucket['id']}", body)[1]["lifecycleRules"][0]
        return answer.get("Filter")

    assert kept({}) is None
    assert kept({"And": {"Prefix": "a"}}) == kept({"Prefix": "a"}) == {"Prefix": "a"}
    assert kept({"And": {"Prefix": "a", "ObjectSizeLessThan": 5}})["And"]["ObjectSizeLessThan"] == 5
