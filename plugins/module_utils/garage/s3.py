# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client of Garage's S3 API that knows nothing but what it is given, and its errors as ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible.module_utils.basic import env_fallback
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    HostingError,
    Locked,
    NotFound,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import check_url

try:
    import boto3
    import botocore.config
    import botocore.exceptions
    import botocore.session
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

# require_libraries() takes these
S3_LIBRARIES = ("boto3", "botocore")
S3_ARGUMENTS: dict[str, dict[str, Any]] = {
    "s3_endpoint": {"type": "str", "fallback": (env_fallback, ["GARAGE_S3_ENDPOINT"])},
    "s3_region": {"type": "str", "default": "garage", "fallback": (env_fallback, ["GARAGE_S3_REGION"])},
}
ATTEMPTS = 4
# what the environment or files of the user could say otherwise: (in the file, in the environment, default, conversion)
OWN_CONFIGURATION = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


def s3_client(
    endpoint: str,
    region: str,
    access_key_id: str,
    secret_access_key: str,
    *,
    validate_certs: bool = True,
    ca_path: str | None = None,
    timeout: int = 30,
) -> Any:
    """A boto3 S3 client of one access key: path style, no credentials or settings from the environment.

    :param endpoint: scheme, host and port, such as ``http://127.0.0.1:3900``.
    :param timeout: seconds without an answer before a request is given up; there are ``ATTEMPTS`` of each.
    :raises InvalidInput: the endpoint cannot be one.
    """
    check_url(endpoint, "s3_endpoint", "the S3 endpoint")
    own_session = botocore.session.Session(session_vars=OWN_CONFIGURATION)
    return boto3.session.Session(botocore_session=own_session).client(
        "s3",
        endpoint_url=endpoint.rstrip("/"),
        region_name=region,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        verify=(ca_path or True) if validate_certs else False,
        config=botocore.config.Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            connect_timeout=timeout,
            read_timeout=timeout,
            # Garage before 2.0 does not know the checksums that boto3 adds by default
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@contextmanager
def s3_errors(where: str) -> Iterator[None]:
    """Turn errors of boto3 inside the block into ours.

    :param where: the bucket, or what else the block is about.
    :raises HostingError: :func:`error_of` tells which.
    """
    try:
        yield
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise error_of(error, where) from error


def error_of(error: Exception, where: str) -> HostingError:
    """The error that an exception of boto3 stands for.

    :returns: Denied (403), NotFound (404), Locked (412: it is not what it was), Unreachable (no answer, 503),
        BackendError (the rest).
    """
    if not isinstance(error, botocore.exceptions.ClientError):
        return Unreachable(
            f"no answer from Garage's S3 API: {error}", where=where, hint="Check s3_endpoint and that Garage runs there"
        )
    code, message = str(error.response["Error"].get("Code", "")), str(error.response["Error"].get("Message", ""))
    status = status_of(error)
    text = f"{message or 'no message'} (HTTP {status} {code})"
    if status == 403:
        return Denied(text, where=where, hint="Check the key's permissions, its expiration and the quotas")
    if status == 404:
        return NotFound(text, where=where, hint="Run again; somebody else may have deleted it")
    if status == 412:
        return Locked("the object was changed meanwhile", where=where, hint="Run again when nobody writes any more")
    if status == 503:
        return Unreachable(text, where=where, hint="Garage has no quorum or is starting: look at 'garage status'")
    return BackendError(text, where=where, hint="Look at Garage's log; check s3_region")


def status_of(error: Exception) -> int:
    """The HTTP status of an answer that boto3 raised as a ClientError."""
    response: dict[str, Any] = getattr(error, "response", {})
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
