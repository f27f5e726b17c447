# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.action import fleet_plan
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError


def test_the_plan_is_replaced_as_a_whole_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "controller" / "fleet.json"
    for number in (1, 2):
        fleet_plan._write(path, {"version": number})
        assert json.loads(path.read_text(encoding="utf-8")) == {"version": number}
    assert path.stat().st_mode & 0o077 == 0
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_named_and_the_old_plan_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fleet.json"
    fleet_plan._write(path, {"version": 1})

    def full(*_arguments: object, **_options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(BackendError, match=r"fleet\.json: the plan cannot be written: No space left on device\. Check"):
        fleet_plan._write(path, {"version": 2})
    assert json.loads(path.read_text(encoding="utf-8")) == {"version": 1}
    assert list(tmp_path.iterdir()) == [path]
