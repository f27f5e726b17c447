# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The endpoints, and the way from a request to its answer, without HTTP.

The order is the real server's: the endpoint and the body are looked at before the token, so an unknown endpoint or a
wrong body is 400 for everybody. Nodes, workers, blocks and the history of the layout are not served; those endpoints
are answered as by a server that does not have them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from lab.garage import buckets, cluster, keys, shapes, tokens, versions
from lab.garage.errors import ApiError, bad_request, internal
from lab.garage.shapes import Record
from lab.garage.store import Store, Tables

REGION = "garage"
Handler = Callable[[Tables, dict[str, str], Any], Any]

# query parameters that some endpoint reads; given twice they are refused, empty they count as absent
PARAMETERS = ("node", "domain", "format", "id", "search", "globalAlias", "alias", "accessKeyId", "showSecretKey")


@dataclass(frozen=True)
class Endpoint:
    """``query``: parameters it reads, and whether it needs them; ``open``: no token is asked for."""

    method: str
    handler: Handler
    body: Record | None = None
    query: dict[str, bool] = field(default_factory=dict)
    open: bool = False


ID = {"id": True}
ENDPOINTS: dict[str, Endpoint] = {
    "/check": Endpoint("GET", buckets.check_domain, query={"domain": True}, open=True),
    "/health": Endpoint("GET", cluster.health, open=True),
    "/v2/GetClusterHealth": Endpoint("GET", cluster.get_cluster_health),
    "/v2/GetClusterStatus": Endpoint("GET", cluster.get_cluster_status),
    "/v2/GetClusterLayout": Endpoint("GET", cluster.get_cluster_layout),
    "/v2/UpdateClusterLayout": Endpoint("POST", cluster.update_cluster_layout, shapes.UPDATE_LAYOUT),
    "/v2/ApplyClusterLayout": Endpoint("POST", cluster.apply_cluster_layout, shapes.APPLY_LAYOUT),
    "/v2/ListAdminTokens": Endpoint("GET", tokens.list_admin_tokens),
    "/v2/GetAdminTokenInfo": Endpoint("GET", tokens.get_admin_token_info, query={"id": False, "search": False}),
    "/v2/GetCurrentAdminTokenInfo": Endpoint("GET", tokens.get_current_admin_token_info),
    "/v2/CreateAdminToken": Endpoint("POST", tokens.create_admin_token, shapes.UPDATE_TOKEN),
    "/v2/UpdateAdminToken": Endpoint("POST", tokens.update_admin_token, shapes.UPDATE_TOKEN, ID),
    "/v2/DeleteAdminToken": Endpoint("POST", tokens.delete_admin_token, query=ID),
    "/v2/ListKeys": Endpoint("GET", keys.list_keys),
    "/v2/GetKeyInfo": Endpoint("GET", keys.get_key_info, query={"id": False, "search": False, "showSecretKey": False}),
    "/v2/CreateKey": Endpoint("POST", keys.create_key, shapes.UPDATE_KEY),
    "/v2/ImportKey": Endpoint("POST", keys.import_key, shapes.IMPORT_KEY),
    "/v2/UpdateKey": Endpoint("POST", keys.update_key, shapes.UPDATE_KEY, ID),
    "/v2/DeleteKey": Endpoint("POST", keys.delete_key, query=ID),
    "/v2/ListBuckets": Endpoint("GET", buckets.list_buckets),
    "/v2/GetBucketInfo": Endpoint(
        "GET", buckets.get_bucket_info, query={"id": False, "globalAlias": False, "search": False}
    ),
    "/v2/CreateBucket": Endpoint("POST", buckets.create_bucket, shapes.CREATE_BUCKET),
    "/v2/UpdateBucket": Endpoint("POST", buckets.update_bucket, shapes.UPDATE_BUCKET, ID),
    "/v2/DeleteBucket": Endpoint("POST", buckets.delete_bucket, query=ID),
    "/v2/CleanupIncompleteUploads": Endpoint("POST", buckets.cleanup_incomplete_uploads, shapes.CLEANUP_UPLOADS),
    "/v2/AllowBucketKey": Endpoint("POST", buckets.allow_bucket_key, shapes.BUCKET_KEY),
    "/v2/DenyBucketKey": Endpoint("POST", buckets.deny_bucket_key, shapes.BUCKET_KEY),
    "/v2/AddBucketAlias": Endpoint("POST", buckets.add_bucket_alias, shapes.BUCKET_ALIAS),
    "/v2/RemoveBucketAlias": Endpoint("POST", buckets.remove_bucket_alias, shapes.BUCKET_ALIAS),
}


@dataclass(frozen=True)
class Request:
    """``path`` without the query string; ``query`` is that string."""

    method: str
    path: str
    query: str = ""
    authorization: str | None = None
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """``content_type`` is empty where Garage sends none."""

    status: int
    body: str
    content_type: str = "application/json"


def answer(store: Store, admin_token: str, request: Request) -> Answer:
    """What the server answers; writes are in the store, and on its disk, before this returns."""
    try:
        return _answer(store, admin_token, request)
    except ApiError as error:
        body = {"code": error.code, "message": error.message, "region": REGION, "path": request.path}
        return Answer(error.status, json.dumps(body, indent=2))


def _answer(store: Store, admin_token: str, request: Request) -> Answer:
    query = _parse_query(request.query)
    endpoint = ENDPOINTS.get(request.path)
    if request.method == "OPTIONS":
        return Answer(200, "", "")
    if endpoint is None or endpoint.method != request.method or not versions.knows(store.version, request.path):
        raise bad_request(f"Unknown API endpoint: {request.method} {request.path}")
    given = versions.request_body(store.version, _parse_json(request.body)) if endpoint.body else None
    body = shapes.parse(endpoint.body, given) if endpoint.body else None
    for name, is_required in endpoint.query.items():
        if is_required and name not in query:
            raise bad_request("Missing argument for endpoint")
    if endpoint.open:
        text = endpoint.handler(store.tables, query, body)
        if request.path == "/health":
            return Answer(200 if cluster.has_layout(store.tables) else 503, text, "text/plain")
        return Answer(200, text, "")
    name = request.path.removeprefix("/v2/")
    query[tokens.CALLER] = tokens.authorize(store.tables, admin_token, request.authorization, name)
    if not cluster.has_layout(store.tables) and request.path not in cluster.WITHOUT_LAYOUT:
        raise internal("Layout not ready")
    if request.method == "POST":
        with store.change() as tables:
            result = endpoint.handler(tables, query, body)
    else:
        result = endpoint.handler(store.tables, query, body)
    return Answer(200, json.dumps(versions.answer_body(store.version, result), indent=2))


def _parse_query(text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name in PARAMETERS and value:
            if name in query:
                raise bad_request(f"Query parameter repeated: '{name}'")
            query[name] = value
    return query


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise bad_request(f"Invalid JSON: {error}") from error
