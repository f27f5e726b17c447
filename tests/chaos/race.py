# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The confirmation against the deadline: `make race N=100`.

The guard's program is driven on lab hosts without Ansible. Every trial confirms an activated system within 0.3 s of the
moment at which the watchdog gives up, whoever is first. That moment depends on when the watchdog wakes up, so it is
searched: after a commit the next trial comes later, after a rollback earlier.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Report, parse_report
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import (
    HealthChecks,
    Request,
    begin_words,
    confirm_words,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.scripts import COMMAND, guard_script
from guard_lab import ROOT, GuardedHost, start_lab, stop_lab

SPREAD = 0.3
"""Seconds before and after the supposed edge."""
CONFIRM_TIMEOUT = 1
CONFIRM = r"""
record=/var/lib/fediversity-guard/transaction
until activated=$(sed -n 's/^activated=\([0-9]\{1,\}\)$/\1/p' $record) && [ -n "$activated" ]; do sleep 0.05; done
sleep "$(awk -v from="$activated" '{ left = from + AFTER - $1; print (left > 0 ? left : 0) }' /proc/uptime)"
sh /var/lib/fediversity-guard/guard-* WORDS >/dev/null
until grep -Eqx 'phase=(committed|rolled-back)' $record; do sleep 0.1; done
sed -n 's/^phase=//p' $record
"""


@dataclass(frozen=True)
class Trial:
    number: int
    delay: float  # seconds after the deadline
    phase: str
    problem: str


def guard(host: GuardedHost, words: Sequence[str]) -> Report:
    """Run one verb of the guard as root of the host, without its network.

    :raises subprocess.SubprocessError: the host is down, or went down.
    """
    command = [str(ROOT / "lab"), "run", host.name, "--", "sh", "-c", COMMAND]
    done = subprocess.run(
        command, input=guard_script(words), env=host.environment, stdout=subprocess.PIPE, check=True, timeout=20
    )
    return parse_report(done.stdout.decode())


def race(host: GuardedHost, number: int, delay: float, old: str, new: str) -> Trial:
    txn = f"race-{number}"
    request = Request(txn, "race", host.systems[new], activation_timeout=60, confirm_timeout=CONFIRM_TIMEOUT)
    begun = guard(host, [*begin_words(request), "contact_limit=0"])
    if begun.result != "started":
        return Trial(number, delay, begun.result, f"{begun.result} {begun.error}")
    words = confirm_words(txn, 0, "activated", HealthChecks(), hold=False)
    script = CONFIRM.replace("AFTER", f"{CONFIRM_TIMEOUT + delay:.2f}").replace("WORDS", " ".join(words))
    phase = host.shell(script).strip()
    try:
        host.assert_ended(new if phase == "committed" else old, phase)
    except AssertionError as error:
        return Trial(number, delay, phase, str(error))
    return Trial(number, delay, phase, "")


def run_on(host: GuardedHost, numbers: Iterator[int], seed: int, trials: list[Trial]) -> None:
    """Trials on one host until there are no more."""
    old, new, edge = "other", "base", 0.5
    for number in numbers:
        delay = edge + random.Random(f"{seed}-{number}").uniform(-SPREAD, SPREAD)
        trial = race(host, number, delay, old, new)
        trials.append(trial)
        print(
            f"trial {number:4} {host.name:<10} deadline {delay:+.2f} s  {trial.phase:<12} {trial.problem}", flush=True
        )
        if trial.problem:
            print(
                host.try_shell("cat /var/lib/fediversity-guard/transaction /var/lib/fediversity-guard/journal").stdout
            )
            return
        if trial.phase == "committed":
            old, new = new, old
        edge += 0.1 if trial.phase == "committed" else -0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--hosts", type=int, default=6)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="race-lab-") as directory:
        try:
            hosts = start_lab(Path(directory), *(f"race{number}" for number in range(1, options.hosts)))
            for run in [host.begin("other", activation_timeout=60) for host in hosts]:  # both systems are there now
                run.result()
            numbers = iter(range(options.trials))
            began = time.monotonic()
            threads = [threading.Thread(target=run_on, args=(host, numbers, options.seed, trials)) for host in hosts]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            stop_lab(Path(directory))
    sides = [sum(trial.phase == phase for trial in trials) for phase in ("committed", "rolled-back")]
    problems = sum(bool(trial.problem) for trial in trials)
    missing = options.trials - len(trials)
    print(
        f"{len(trials)} trials in {time.monotonic() - began:.0f} s: {sides[0]} committed, {sides[1]} rolled back,"
        f" {problems} inconsistent, {missing} not run"
    )
    return 1 if problems or missing else 0


if __name__ == "__main__":
    sys.exit(main())
