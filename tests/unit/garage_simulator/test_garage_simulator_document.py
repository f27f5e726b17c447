# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator against the OpenAPI document of Garage 2.3.0: endpoints, request fields, answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from lab.garage import api
from lab.garage.api import ENDPOINTS, Request, answer
from lab.garage.shapes import ListOf, Record, Scalar, Shape
from lab.garage.store import Store

DOCUMENT = Path(__file__).parents[4] / "shared/reference/garage-admin-v2.json"
TOKEN = "configured"

# history of the cluster layout, nodes, workers, blocks, objects and metrics: nothing in this project calls them
NOT_SERVED = {
    "/metrics",
    "/v2/ClusterLayoutSkipDeadNodes",
    "/v2/ConnectClusterNodes",
    "/v2/CreateMetadataSnapshot",
    "/v2/GetBlockInfo",
    "/v2/GetClusterLayoutHistory",
    "/v2/GetClusterStatistics",
    "/v2/GetNodeInfo",
    "/v2/GetNodeStatistics",
    "/v2/GetWorkerInfo",
    "/v2/GetWorkerVariable",
    "/v2/InspectObject",
    "/v2/LaunchRepairOperation",
    "/v2/ListBlockErrors",
    "/v2/ListWorkers",
    "/v2/PreviewClusterLayoutChanges",
    "/v2/PurgeBlocks",
    "/v2/RetryBlockResync",
    "/v2/RevertClusterLayout",
    "/v2/SetWorkerVariable",
}

# a lifecycle filter inside a filter
RECURSIVE = "And"
# S3 text values: the document has no schema for them, so it does not say that null is allowed
XML_TEXTS = {
    "Date",
    "HostName",
    "ID",
    "KeyPrefixEquals",
    "Prefix",
    "Protocol",
    "ReplaceKeyPrefixWith",
    "ReplaceKeyWith",
}

if not DOCUMENT.exists():
    pytest.skip(f"the OpenAPI document of Garage is not at {DOCUMENT}", allow_module_level=True)
OPENAPI = json.loads(DOCUMENT.read_text(encoding="utf-8"))


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = OPENAPI["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def described(schema: dict[str, Any]) -> Any:
    """A schema as comparable data: {field: (required, nullable, type)}, [item], or a type name."""
    schema = resolve(schema)
    variants = [resolve(variant) for variant in schema.get("oneOf", ()) if variant.get("type") != "null"]
    if len(variants) == 1:
        return described(variants[0])
    if variants:
        # an object of one of several forms: only what all of them require is required
        shared = set.intersection(*(set(variant["required"]) for variant in variants))
        fields = {name: kind for variant in variants for name, (*_rest, kind) in described(variant).items()}
        return {name: (name in shared, name not in shared, kind) for name, kind in fields.items()}
    kind = next((kind for kind in kinds(schema) if kind != "null"), "string")
    if kind == "object":
        required = schema.get("required", ())
        properties = {name: entry for name, entry in schema["properties"].items() if name != RECURSIVE}
        return {name: (name in required, nullable(entry), described(entry)) for name, entry in properties.items()}
    if kind == "array":
        return [described(schema["items"])]
    if kind == "integer" and schema.get("minimum") == 0:
        return "unsigned"
    return schema.get("format") if schema.get("format") == "date-time" else kind


def kinds(schema: dict[str, Any]) -> list[str]:
    kind = schema.get("type", [])
    return kind if isinstance(kind, list) else [kind]


def nullable(schema: dict[str, Any]) -> bool:
    return "null" in kinds(schema) or any(variant.get("type") == "null" for variant in schema.get("oneOf", ()))


def described_shape(shape: Shape) -> Any:
    if isinstance(shape, Scalar):
        return shape.kind
    if isinstance(shape, ListOf):
        return [described_shape(shape.item)]
    return {
        name: (entry.required, entry.nullable and name not in XML_TEXTS, described_shape(entry.shape))
        for name, entry in shape.fields.items()
        if name != RECURSIVE
    }


def test_serves_what_the_document_lists_and_nothing_else() -> None:
    assert set(ENDPOINTS) | NOT_SERVED == set(OPENAPI["paths"])
    assert not set(ENDPOINTS) & NOT_SERVED


@pytest.mark.parametrize("path", sorted(ENDPOINTS))
def test_method_and_query_parameters(path: str) -> None:
    ((method, operation),) = OPENAPI["paths"][path].items()
    assert ENDPOINTS[path].method == method.upper()
    assert ENDPOINTS[path].query == {
        parameter["name"]: parameter["required"] for parameter in operation.get("parameters", ())
    }
    assert ENDPOINTS[path].open == (operation.get("security") == [{}])


# its roles are one of two forms, and the parameters of the layout are not served
@pytest.mark.parametrize("path", sorted(ENDPOINTS.keys() - {"/v2/UpdateClusterLayout"}))
def test_request_fields(path: str) -> None:
    (operation,) = OPENAPI["paths"][path].values()
    body: Record | None = ENDPOINTS[path].body
    if "requestBody" not in operation:
        assert body is None
        return
    assert body is not None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert described_shape(body) == described(schema)


def test_answers_fit_the_document() -> None:
    store = Store()
    seen: set[str] = set()

    def call(method: str, path: str, query: str = "", body: Any = None) -> Any:
        request = Request(method, path, query, f"Bearer {TOKEN}", b"" if body is None else json.dumps(body).encode())
        reply = answer(store, TOKEN, request)
        assert reply.status == 200, reply.body
        (operation,) = OPENAPI["paths"][path].values()
        content = operation["responses"]["200"].get("content")
        seen.add(path)
        if content is None:
            return reply.body
        value = json.loads(reply.body)
        schema = content["application/json"]["schema"]
        jsonschema.Draft202012Validator({**schema, "components": OPENAPI["components"]}).validate(value)
        return value

    token = call("POST", "/v2/CreateAdminToken", body={"name": "least", "scope": ["ListBuckets"]})
    call("POST", "/v2/UpdateAdminToken", f"id={token['id']}", {"expiration": "2099-01-01T00:00:00Z"})
    call("GET", "/v2/ListAdminTokens")
    call("GET", "/v2/GetCurrentAdminTokenInfo")
    call("GET", "/v2/GetAdminTokenInfo", "search=least")
    assert call("POST", "/v2/DeleteAdminToken", f"id={token['id']}") == "null"
    call("GET", "/v2/GetClusterHealth")
    call("GET", "/v2/GetClusterStatus")
    role = {"id": call("GET", "/v2/GetClusterStatus")["nodes"][0]["id"], "zone": "z", "tags": [], "capacity": 10**9}
    call("POST", "/v2/UpdateClusterLayout", body={"roles": [role]})
    version = call("GET", "/v2/GetClusterLayout")["version"]
    call("POST", "/v2/ApplyClusterLayout", body={"version": version + 1})
    key = call("POST", "/v2/CreateKey", body={"name": "one"})["accessKeyId"]
    imported = {"accessKeyId": "GK" + "0" * 24, "secretAccessKey": "1" * 64, "name": "two"}
    call("POST", "/v2/ImportKey", body=imported)
    call("POST", "/v2/UpdateKey", f"id={key}", {"allow": {"createBucket": True}})
    local = {"accessKeyId": key, "alias": "mine", "allow": {"read": True}}
    bucket = call("POST", "/v2/CreateBucket", body={"globalAlias": "media.example.org", "localAlias": local})["id"]
    website = {
        "enabled": True,
        "indexDocument": "i.html",
        "routingRules": [{"Redirect": {"HostName": "example.org", "HttpRedirectCode": 302}}],
    }
    cors = [{"AllowedOrigin": ["*"], "AllowedMethod": ["GET"], "MaxAgeSeconds": 5}]
    lifecycle = [{"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}]
    call(
        "POST",
        "/v2/UpdateBucket",
        f"id={bucket}",
        {"websiteAccess": website, "quotas": {"maxSize": 5}, "corsRules": cors, "lifecycleRules": lifecycle},
    )
    permission = {"bucketId": bucket, "accessKeyId": key, "permissions": {"read": True, "write": True}}
    call("POST", "/v2/AllowBucketKey", body=permission)
    call("POST", "/v2/DenyBucketKey", body=permission)
    call("POST", "/v2/AddBucketAlias", body={"bucketId": bucket, "globalAlias": "other"})
    call("POST", "/v2/RemoveBucketAlias", body={"bucketId": bucket, "localAlias": "mine", "accessKeyId": key})
    call("POST", "/v2/CleanupIncompleteUploads", body={"bucketId": bucket, "olderThanSecs": 0})
    call("GET", "/v2/GetKeyInfo", f"id={key}&showSecretKey=true")
    call("GET", "/v2/ListKeys")
    call("GET", "/v2/ListBuckets")
    call("GET", "/v2/GetBucketInfo", "globalAlias=other")
    call("GET", "/check", "domain=media.example.org")
    call("GET", "/health")
    call("POST", "/v2/DeleteBucket", f"id={bucket}")
    call("POST", "/v2/DeleteKey", f"id={key}")
    assert seen == set(api.ENDPOINTS)
