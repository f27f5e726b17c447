# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every failing exchange that was recorded from the real server gets the class that this table states."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    Exists,
    HostingError,
    InvalidInput,
    Locked,
    NotFound,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.answers import (
    Answer,
    Invalid,
    LostAnswer,
    Outdated,
    Transient,
    error_of_answer,
    error_of_text,
)

TRANSCRIPTS = Path(__file__).parents[1] / "proxmox_simulator" / "proxmox-transcripts.json"

# status, pattern of the reason (400 with errors: of one of its texts), class; the first match decides
FAMILIES: tuple[tuple[int, str, type[HostingError]], ...] = (
    (0, r"connection closed without a response", LostAnswer),
    (400, r"^no such task$", NotFound),
    (400, r"already exists", Exists),
    (400, r"", Invalid),
    (401, r"", Denied),
    (403, r"pool '.*' does not exist", NotFound),
    (403, r"", Denied),
    (500, r"^Configuration file '.*' does not exist$", NotFound),
    (500, r"^unable to find configuration file for VM \d+ on node", NotFound),
    (500, r"^hostname lookup '.*' failed|^no such cluster node|^no such user", NotFound),
    (
        500,
        r"^(ACL update failed: |delete role failed: |update pools failed: )?(role|user|pool) '.*' does not exist",
        NotFound,
    ),
    (500, r"^(snapshot|storage) '.*' does not exist|^no rule at position|is not a pool member$", NotFound),
    (500, r"^(create (pool|role|user) failed: |unable to create VM \d+).*already exists", Exists),
    (500, r"^disk image '.*' already exists|is already a pool member$", Exists),
    (500, r"^unable to create VM \d+ - can't lock file .* got timeout", Exists),
    (500, r"^VM is locked \(", Locked),
    (500, r"^checksum mismatch \(file change|^detected modified configuration", Outdated),
    (500, r"^[Oo]nly root can |protection mode enabled|^auto-generated role", Denied),
    (500, r"belongs already to pool|is not empty|not running$|agent|destroy failed|[Ll]inked clone", BackendError),
    (
        500,
        r"^no options specified|^can't clone VM|does not support|does not look like|convert a template",
        BackendError,
    ),
    (500, r"SSH public key validation", InvalidInput),
    (501, r"^Method '.*' not implemented$", BackendError),
    (595, r"", LostAnswer),
    (596, r"", LostAnswer),
)
EXIT_STATUS: tuple[tuple[str, type[HostingError]], ...] = (
    (r"^(Configuration file|unable to find configuration|disk 'scsi5' does not exist)", NotFound),
    (r"^VM is locked", Locked),
    (r"^can't lock file .* got timeout$", Transient),
    (r"^checksum mismatch \(file change", Outdated),
    (r"File exists$", Exists),
    (
        r"already running|powerdown failed|in use by linked|checksum mismatch: got|qemu-img|shrinking|cdrom",
        BackendError,
    ),
    (r"failed to stat|received interrupt", BackendError),
    # not recorded: the worker was killed
    (r"^unexpected status$", LostAnswer),
)


def exchanges() -> Iterator[tuple[str, dict[str, Any]]]:
    recorded = json.loads(TRANSCRIPTS.read_text(encoding="utf-8"))
    for scenario in recorded["scenarios"]:
        for number, exchange in enumerate(scenario["exchanges"], start=1):
            yield f"{scenario['name']} {number}", exchange["response"]


def failing() -> list[Any]:
    found = [(name, response) for name, response in exchanges() if response["status"] >= 400]
    return [pytest.param(response, id=name) for name, response in found]


def answer_of(response: dict[str, Any]) -> Answer:
    body = response["body"] if isinstance(response["body"], dict) else {}
    return Answer(response["status"], response["reason"], body.get("data"), body.get("errors") or {})


def stated(answer: Answer) -> type[HostingError]:
    texts = list(answer.errors.values()) or [answer.reason]
    for status, pattern, error in FAMILIES:
        if status == answer.status and all(re.search(pattern, text) for text in texts):
            return error
    raise AssertionError(f"no family for {answer}")


def test_the_recording_is_there() -> None:
    assert len(failing()) > 200


@pytest.mark.parametrize("response", failing())
def test_class_of_a_recorded_failure(response: dict[str, Any]) -> None:
    answer = answer_of(response)
    error = error_of_answer(answer, "pve1 GET /x", "a@pve!t")
    assert error.__class__ is stated(answer)
    for name, text in answer.errors.items():
        if isinstance(error, Invalid):
            assert error.parameters[name] == text
    if not answer.errors and answer.status != 401:
        assert answer.reason.strip().partition("(")[0].strip() in str(error) or isinstance(error, NotFound)


def test_every_recorded_exit_status_has_its_class() -> None:
    recorded = {
        status
        for _name, response in exchanges()
        if isinstance(response["body"], dict)
        and isinstance(data := response["body"].get("data"), dict)
        and isinstance(status := data.get("exitstatus"), str)
        and status != "OK"
    }
    assert len(recorded) > 10
    for status in {*recorded, "unexpected status"}:
        expected = next((error for pattern, error in EXIT_STATUS if re.search(pattern, status)), None)
        assert expected is type(error_of_text(status)), status


def test_refused_ssh_keys_name_the_option() -> None:
    answer = Answer(500, "SSH public key validation error")
    assert "cloud_init.ssh_keys" in str(error_of_answer(answer, "pve1 PUT /x", "a@pve!t"))
