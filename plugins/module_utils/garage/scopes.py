# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scopes of admin tokens: names of endpoints of the admin API."""

from __future__ import annotations

# every endpoint
ALL = "*"
# what garage_admin_tokens itself needs; who has it can give himself everything
TOKENS = ("CreateAdminToken", "DeleteAdminToken", "ListAdminTokens", "UpdateAdminToken")
_READ = ("GetBucketInfo", "ListBuckets", "ListKeys")
_RIGHTS = ("AllowBucketKey", "DenyBucketKey")
# the least scope of each task. Who has GetKeyInfo can read the secrets of all keys
PRESETS: dict[str, tuple[str, ...]] = {
    # garage_buckets, with keys that are imported
    "run": (
        *_READ,
        *_RIGHTS,
        "AddBucketAlias",
        "CreateBucket",
        "ImportKey",
        "RemoveBucketAlias",
        "UpdateBucket",
        "UpdateKey",
    ),
    # garage_keys
    "keys": ("CreateKey", "GetKeyInfo", "ImportKey", "ListKeys", "UpdateKey"),
    # deletions and exports, incomplete uploads
    "collect": (*_READ, *_RIGHTS, "CleanupIncompleteUploads", "CreateKey", "DeleteBucket", "DeleteKey"),
    "tokens": TOKENS,
}
# Garage takes any word, so a wrong one would be noticed only when the token is used. Garage 2.3
ENDPOINTS = frozenset(
    (
        "AddBucketAlias",
        "AllowBucketKey",
        "ApplyClusterLayout",
        "CheckDomain",
        "CleanupIncompleteUploads",
        "ClusterLayoutSkipDeadNodes",
        "ConnectClusterNodes",
        "CreateAdminToken",
        "CreateBucket",
        "CreateKey",
        "CreateMetadataSnapshot",
        "DeleteAdminToken",
        "DeleteBucket",
        "DeleteKey",
        "DenyBucketKey",
        "GetAdminTokenInfo",
        "GetBlockInfo",
        "GetBucketInfo",
        "GetClusterHealth",
        "GetClusterLayout",
        "GetClusterLayoutHistory",
        "GetClusterStatistics",
        "GetClusterStatus",
        "GetCurrentAdminTokenInfo",
        "GetKeyInfo",
        "GetNodeInfo",
        "GetNodeStatistics",
        "GetWorkerInfo",
        "GetWorkerVariable",
        "Health",
        "ImportKey",
        "InspectObject",
        "LaunchRepairOperation",
        "ListAdminTokens",
        "ListBlockErrors",
        "ListBuckets",
        "ListKeys",
        "ListWorkers",
        "Metrics",
        "PreviewClusterLayoutChanges",
        "PurgeBlocks",
        "RemoveBucketAlias",
        "RetryBlockResync",
        "RevertClusterLayout",
        "SetWorkerVariable",
        "UpdateAdminToken",
        "UpdateBucket",
        "UpdateClusterLayout",
        "UpdateKey",
    )
)
