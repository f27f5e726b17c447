# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Website, CORS and lifecycle of a bucket through S3: the same settings that the admin API shows."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

from lab.garage import settings
from lab.garage.errors import bad_request, malformed_xml, no_such_setting
from lab.garage.s3 import xml
from lab.garage.s3.call import Answer, Call, xml_answer
from lab.garage.store import OLDEST


def get_cors(call: Call) -> Answer:
    if call.row["corsRules"] is None:
        return _none(call, "CORS", 204)
    return xml_answer("CORSConfiguration", {"CORSRule": call.row["corsRules"]})


def put_cors(call: Call) -> Answer:
    rules: list[dict[str, Any]] = []
    for item in xml.parse("CORSConfiguration", call.body).findall("CORSRule"):
        rule = {name: xml.texts(item, name)
                for name in ("AllowedOrigin", "AllowedMethod", "AllowedHeader", "ExposeHeader")}  # fmt: skip
        if not rule["AllowedOrigin"] or not rule["AllowedMethod"]:
            raise malformed_xml("missing field `AllowedOrigin` or `AllowedMethod`")
        rules.append({"ID": xml.text(item, "ID"), "MaxAgeSeconds": xml.number(item, "MaxAgeSeconds"), **rule})
    return _keep(call, "corsRules", settings.cors_rules(rules))


def get_lifecycle(call: Call) -> Answer:
    if call.row["lifecycleRules"] is None:
        return _none(call, "Lifecycle", 404)
    return xml_answer("LifecycleConfiguration", {"Rule": call.row["lifecycleRules"]})


def put_lifecycle(call: Call) -> Answer:
    rules = [_lifecycle_rule(item) for item in xml.parse("LifecycleConfiguration", call.body).findall("Rule")]
    return _keep(call, "lifecycleRules", settings.lifecycle_rules(rules))


def _lifecycle_rule(item: Element) -> dict[str, Any]:
    status = xml.text(item, "Status")
    if status is None:
        raise malformed_xml("missing field `Status`")
    abort = xml.number(item, "AbortIncompleteMultipartUpload/DaysAfterInitiation")
    found = item.find("Expiration")
    expiration = None
    if found is not None:
        expiration = {"Days": xml.number(found, "Days"), "Date": xml.text(found, "Date")}
    return {
        "ID": xml.text(item, "ID"),
        "Status": status,
        "Filter": _filter(item.find("Filter")),
        "Expiration": expiration,
        "AbortIncompleteMultipartUpload": None if abort is None else {"DaysAfterInitiation": abort},
    }


def _filter(item: Element | None) -> dict[str, Any] | None:
    if item is None:
        return None
    return {
        "And": _filter(item.find("And")),
        "Prefix": xml.text(item, "Prefix"),
        "ObjectSizeGreaterThan": xml.number(item, "ObjectSizeGreaterThan"),
        "ObjectSizeLessThan": xml.number(item, "ObjectSizeLessThan"),
    }


def get_website(call: Call) -> Answer:
    website = call.row["website"]
    if website is None:
        return Answer(204)
    error = website["errorDocument"]
    rules = website["routingRules"]
    return xml_answer(
        "WebsiteConfiguration",
        {
            "ErrorDocument": {"Key": error} if error is not None else None,
            "IndexDocument": {"Suffix": website["indexDocument"]},
            "RoutingRules": {"RoutingRule": rules} if rules else None,
        },
    )


def put_website(call: Call) -> Answer:
    """Index and error document; redirections are not served."""
    root = xml.parse("WebsiteConfiguration", call.body)
    if root.find("RedirectAllRequestsTo") is not None or root.find("RoutingRules") is not None:
        raise bad_request("redirections are not simulated")
    index = xml.text(root, "IndexDocument/Suffix")
    if not index or "/" in index:
        raise bad_request("Bad XML: invalid IndexDocument")
    website: dict[str, Any] = {
        "indexDocument": index,
        "errorDocument": xml.text(root, "ErrorDocument/Key"),
        "routingRules": [],
    }
    return _keep(call, "website", website)


def delete_cors(call: Call) -> Answer:
    _keep(call, "corsRules", None)
    return Answer(204)


def delete_lifecycle(call: Call) -> Answer:
    _keep(call, "lifecycleRules", None)
    return Answer(204)


def delete_website(call: Call) -> Answer:
    _keep(call, "website", None)
    return Answer(204)


def _none(call: Call, what: str, older: int) -> Answer:
    """What a server answers where there is no such setting; *older* is the status that Garage 2.0 answers."""
    if call.store.version == OLDEST:
        return Answer(older)
    raise no_such_setting(what)


def _keep(call: Call, field: str, value: Any) -> Answer:
    with call.store.change() as tables:
        tables["buckets"][call.bucket_id][field] = value or None
    return Answer()
