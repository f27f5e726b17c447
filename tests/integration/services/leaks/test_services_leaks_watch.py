# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A secret that is not kept is found: otherwise the other tests here would prove nothing."""

from __future__ import annotations

from pathlib import Path

from services_leaks import outcomes, played

# each appears in one place only, and none of them in the task's source
SECRETS = {
    name: f"sentinel-{name}-b7d1"
    for name in ("clear", "encoded", "hashed", "returned", "argument", "forgotten", "kept")
}
TASKS = [
    {"ansible.builtin.debug": {"msg": "{{ clear }}"}},
    {"ansible.builtin.debug": {"msg": "{{ encoded | b64encode }}"}},
    {"ansible.builtin.debug": {"msg": "{{ hashed | hash('sha256') }}"}},
    {"ansible.builtin.debug": {"msg": "{{ returned }}"}, "no_log": True},
    {"ansible.builtin.command": {"argv": ["sh", "-c", "sleep 0.5", "{{ argument }}"]}, "no_log": True},
    {"ansible.builtin.shell": "printf %s {{ forgotten }} >$TMPDIR/forgotten", "no_log": True},
]


def test_a_secret_that_is_shown_is_found(tmp_path: Path) -> None:
    seen = played(tmp_path, TASKS, SECRETS)
    assert not any(failed for _changed, failed in outcomes(seen))
    traces = seen.traces(SECRETS, **{"the log": f"ALTER ROLE x PASSWORD '{SECRETS['clear']}'"})
    assert {
        *(f"{name} in what was printed" for name in ("clear", "encoded", "hashed")),
        *(f"{name} in left/ansible.log" for name in ("clear", "encoded", "hashed")),
        *("returned in left/results.json", "argument in a command line", "forgotten in left/tmp/forgotten"),
        "clear in the log",
    } <= set(traces)
    assert not any(trace.startswith("kept ") for trace in traces)
