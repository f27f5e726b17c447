# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors of the admin API: HTTP status, ``code`` and message."""

from __future__ import annotations


class ApiError(Exception):
    """An error answer of the server.

    :param status: HTTP status.
    :param code: the ``code`` field of the error body.
    :param message: the ``message`` field of the error body.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def bad_request(message: str) -> ApiError:
    return ApiError(400, "InvalidRequest", f"Bad request: {message}")


def invalid_bucket_name(name: str) -> ApiError:
    return ApiError(400, "InvalidBucketName", f"Invalid bucket name: {name}")


def forbidden(message: str) -> ApiError:
    return ApiError(403, "AccessDenied", f"Forbidden: {message}")


def no_such_bucket(name: str) -> ApiError:
    return ApiError(404, "NoSuchBucket", f"Bucket not found: {name}")


def no_such_key(name: str) -> ApiError:
    return ApiError(404, "NoSuchAccessKey", f"Access key not found: {name}")


def no_such_token(name: str) -> ApiError:
    return ApiError(404, "NoSuchAdminToken", f"Admin token not found: {name}")


def conflict(code: str, message: str) -> ApiError:
    return ApiError(409, code, message)


def internal(message: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error: {message}")


def no_such_object() -> ApiError:
    return ApiError(404, "NoSuchKey", "Key not found")


def no_such_upload() -> ApiError:
    return ApiError(404, "NoSuchUpload", "Upload not found")


def no_such_setting(what: str) -> ApiError:
    """:param what: CORS or Lifecycle."""
    shown = what if what == "CORS" else what.lower()
    return ApiError(404, f"NoSuch{what}Configuration", f"The {shown} configuration does not exist")


def malformed_xml(reason: str) -> ApiError:
    return ApiError(400, "MalformedXML", f"Invalid XML: {reason}")


def invalid_digest(reason: str) -> ApiError:
    return ApiError(400, "InvalidDigest", f"Invalid digest: {reason}")
