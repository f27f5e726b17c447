# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removal of incomplete uploads: an act, not a state, so it is done after buckets are as wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    ActualBucket,
    Desired,
    DesiredBucket,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.provider import understood


def cleaned_up(
    client: Client,
    desired: Sequence[Desired],
    buckets: Mapping[str, ActualBucket],
    result: Mapping[str, Any],
    *,
    check: bool,
) -> dict[str, Any]:
    """*result* of the reconciliation, with what was removed in addition.

    Garage tells how many uploads are incomplete, but not how old they are: check mode predicts that all are removed.

    :param buckets: as they are now, by item.
    """
    ages = {
        wanted.item: wanted.cleanup_incomplete_uploads
        for wanted in desired
        if isinstance(wanted, DesiredBucket) and wanted.present
    }
    results = [
        _cleaned_up(client, item, buckets[item["name"]], age, check=check)
        if (age := ages.get(item["name"])) is not None and item["name"] in buckets and not item["failed"]
        else item
        for item in result["results"]
    ]
    new_failures = [
        item for old, item in zip(result["results"], results, strict=True) if item["failed"] and not old["failed"]
    ]
    return {
        **result,
        "results": results,
        "changed": any(item["changed"] for item in results),
        "failed": result["failed"] or bool(new_failures),
        "msg": "; ".join([result["msg"], *(f"{item['name']}: {item['msg']}" for item in new_failures[:5])]),
    }


def _cleaned_up(
    client: Client, item: Mapping[str, Any], bucket: ActualBucket, age: int, *, check: bool
) -> dict[str, Any]:
    number = bucket.unfinished
    if number and not check:
        body = {"bucketId": bucket.id, "olderThanSecs": age}
        try:
            answer = client.post("CleanupIncompleteUploads", body)
            number = understood(lambda found: int(found["uploadsDeleted"]), answer)
        except HostingError as error:
            return {**item, "failed": True, "msg": str(error)}
    action = "update" if number and item["action"] == "unchanged" else item["action"]
    return {**item, "action": action, "changed": item["changed"] or number > 0, "uploads_deleted": number}
