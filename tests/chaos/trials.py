# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random faults at random moments of a deployment: `make chaos N=200 [SEED=…] [TRIAL=…]`.

Every trial deploys a good or a bad system with the real task and, at a moment drawn over the usual duration, breaks one
thing. When the host is up again and its own deadlines have passed it must run one system, old or new, that is also the
profile's and the boot default, with nothing armed; and what the controller was told must be true. The draws of a trial
depend on the seed and its number only, so it can be repeated alone.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guard_lab import STORY, Deployment, GuardedHost, start_lab, stop_lab

from chaos.race import guard

# name in systems.nix → seconds that its deployment takes longer than that of a plain good one
SYSTEMS = {
    **{"base": 0, "other": 0, "next": 0, "slow": 6, "slow-loader": 5},
    **{"activation-fails": 1, "unit-fails": 1, "bootloader-fails": 1, "crash": 2, "link-down": 8, "sshd-stops": 12},
}
WEIGHTS = (4, 4, 4, 2, 5, 1, 1, 1, 1, 2, 1)
LIMITS = {"confirm_timeout": 3, "activation_timeout": 15, "connect_timeout": 10}
PATIENCE = 240
"""Seconds until a host must have come to rest: more than all limits of a transaction."""


@dataclass(frozen=True)
class Trial:
    number: int
    system: str
    fault: str
    moment: float  # 0 to 1, of the usual duration
    length: float  # seconds, of a fault that ends


@dataclass(frozen=True)
class Verdict:
    trial: Trial
    result: str
    problem: str


def draw(seed: int, number: int) -> Trial:
    dice = random.Random(f"{seed}-{number}")
    system = dice.choices(list(SYSTEMS), WEIGHTS)[0]
    return Trial(number, system, dice.choice(list(FAULTS)), dice.random(), dice.uniform(0.5, 8))


# --- faults -----------------------------------------------------------------------------------------------------------


def cut_network(host: GuardedHost, _run: Deployment, length: float) -> None:
    host.lab("network", host.name, "cut")
    time.sleep(length)
    host.lab("network", host.name, "restore")


def pull_cable(host: GuardedHost, _run: Deployment, length: float) -> None:
    host.lab("cut", host.name)
    time.sleep(length)
    host.lab("uncut", host.name)


def power_off_for_a_while(host: GuardedHost, _run: Deployment, length: float) -> None:
    host.power("stop")
    time.sleep(length)
    host.power("start")


def on_host(script: str) -> Callable[[GuardedHost, Deployment, float], None]:
    def fault(host: GuardedHost, _run: Deployment, _length: float) -> None:
        host.try_shell(script, 20)

    return fault


FAULTS: dict[str, Callable[[GuardedHost, Deployment, float], None]] = {
    "power cut": lambda host, _run, _length: host.power("reset"),
    "power off for a while": power_off_for_a_while,
    "controller killed": lambda _host, run, _length: run.kill(),
    "network cut": cut_network,
    "cable pulled": pull_cable,
    "watchdog killed": on_host("systemctl kill --signal=KILL fediversity-guard.service"),
    "guard's units killed": on_host("systemctl kill --signal=KILL 'fediversity-guard*.service'"),
    "daemon-reexec": on_host("systemctl daemon-reexec"),
    "SSH server stopped": on_host("systemctl stop ssh.service"),
    "restart": on_host("systemctl reboot"),
}


# --- one trial --------------------------------------------------------------------------------------------------------


def perform(host: GuardedHost, trial: Trial, old: str, usual: float) -> Verdict:
    """Deploy, break, recover, look."""
    name = trial.system if trial.system != old else next(good for good in SYSTEMS if good != old)
    before = guard(host, ["status"])
    run = host.begin(name, **LIMITS)
    time.sleep(trial.moment * (usual + SYSTEMS[name]))
    told: dict[str, Any] = {}
    try:
        FAULTS[trial.fault](host, run, trial.length)
        if trial.fault != "controller killed":
            told = run.result()
        return judge(host, trial, rest(host, before.record and before.record.txn), told, (old, name))
    except Exception as error:  # noqa: BLE001  whatever it is, it is this trial's and the others go on
        return Verdict(trial, "error", f"{type(error).__name__}: {error}")
    finally:
        if run.process.poll() is None:
            run.kill()


def rest(host: GuardedHost, before: object) -> str:
    """Wait for the host and the end of what it does; one look closes what a restart interrupted. The end's name."""
    limit = time.monotonic() + PATIENCE
    while True:
        if host.try_shell("systemctl start ssh.service", 10).returncode == 0:
            with suppress(subprocess.SubprocessError):
                record = guard(host, ["settle"]).record
                if record is None or not record.live:
                    break
        if time.monotonic() > limit:
            return "no rest"
        time.sleep(0.5)
    if record is None or record.txn == before:
        return "not begun"
    return record.phase


def judge(host: GuardedHost, trial: Trial, end: str, told: dict[str, Any], names: tuple[str, str]) -> Verdict:
    """Whether the invariant holds; `names` are the old and the new system."""
    old, new = names
    try:
        if end == "committed":
            host.assert_ended(new, end)
        elif end == "not begun":
            host.assert_clean(old)
        else:
            host.assert_ended(old, end)
        told_phase = told.get("phase", "")
        assert told_phase in {"", "unchanged"} or told_phase == end, f"the controller was told {told_phase}"
    except AssertionError as error:
        return Verdict(trial, end, f"{old} -> {new}: {error}")
    return Verdict(trial, end, "")


def run_on(host: GuardedHost, trials: Iterator[Trial], usual: float, verdicts: list[Verdict]) -> None:
    """Trials on one host until there are no more."""
    old = "base"
    for trial in trials:
        began = time.monotonic()
        verdict = perform(host, trial, old, usual)
        verdicts.append(verdict)
        moment = trial.moment * (usual + SYSTEMS[trial.system])
        print(
            f"trial {trial.number:4} {host.name:<10} {trial.system:<17} {moment:5.1f} s {trial.fault:<22}"
            f" {verdict.result:<12} {time.monotonic() - began:5.1f} s {'VIOLATION' if verdict.problem else ''}",
            flush=True,
        )
        if verdict.problem:
            story = host.try_shell(STORY + "; tail -n 40 /var/lib/fediversity-guard/log/*.log").stdout
            print(f"{verdict.problem}\n{story}", flush=True)
        systems = {path: name for name, path in host.systems.items()}
        old = systems.get(host.try_shell("readlink -f /run/current-system").stdout.strip(), "base")


# --- all of them ------------------------------------------------------------------------------------------------------


def usual_duration(hosts: list[GuardedHost]) -> float:
    """Seconds of a good deployment while all hosts have one; afterwards they run `base`."""
    began = time.monotonic()
    for name in ("other", "base"):
        for run in [host.begin(name, activation_timeout=60) for host in hosts]:
            run.result()
    return (time.monotonic() - began) / 2


def summary(verdicts: list[Verdict]) -> str:
    results = sorted({verdict.result for verdict in verdicts})
    counts = Counter((verdict.trial.fault, verdict.result) for verdict in verdicts)
    lines = [f"{'fault':<24}" + "".join(f"{result:>14}" for result in results)]
    lines += [f"{fault:<24}" + "".join(f"{counts[fault, result]:>14}" for result in results) for fault in FAULTS]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--trial", type=int, help="only this one")
    parser.add_argument("--hosts", type=int, default=5)
    options = parser.parse_args()
    numbers = range(options.trials) if options.trial is None else [options.trial]
    trials = iter([draw(options.seed, number) for number in numbers])
    verdicts: list[Verdict] = []
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-lab-") as directory:
        try:
            hosts = start_lab(
                Path(directory), *(f"chaos{number}" for number in range(1, min(options.hosts, len(numbers))))
            )
            usual = usual_duration(hosts)
            began = time.monotonic()
            threads = [threading.Thread(target=run_on, args=(host, trials, usual, verdicts)) for host in hosts]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            stop_lab(Path(directory))
    bad = [verdict.trial.number for verdict in verdicts if verdict.problem]
    print(summary(verdicts))
    print(f"{len(verdicts)} trials in {time.monotonic() - began:.0f} s, {len(bad)} violations, seed {options.seed}")
    for number in bad:
        print(f"again: make chaos SEED={options.seed} TRIAL={number}")
    return 1 if bad or len(verdicts) != len(numbers) else 0


if __name__ == "__main__":
    sys.exit(main())
