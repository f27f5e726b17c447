# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine in a directory: guard.sh runs for real, with stand-ins for systemd and Nix in front of PATH."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Report, parse_report
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import (
    FreeSpace,
    HealthChecks,
    Request,
    begin_words,
    confirm_words,
    seen,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.scripts import guard_script

FAKES = Path(__file__).parent / "fakes"
LIMITS = {
    "activation_limit": 20,
    "confirm_limit": 20,
    "check_limit": 20,
    "hold_limit": 20,
    "reboot_limit": 20,
    "contact_limit": 1,
    "rollback_limit": 10,
}


@dataclass(frozen=True)
class Sandbox:
    """The directory, and what a controller does with the machine in it."""

    root: Path
    shell: str

    def system(self, name: str, test: str = "", boot: str = "", check: str = "") -> str:
        """Make a system; the texts are shell that runs when it is activated, made the default, or checked before."""
        path = self.root / "nix/store" / name
        (path / "bin").mkdir(parents=True)
        (path / "init-interface-version").write_text("1", encoding="utf-8")
        (path / "kernel").write_text("one", encoding="utf-8")
        script = path / "bin/switch-to-configuration"
        script.write_text(
            f"#!/bin/sh\nROOT={self.root}\nif [ $1 = check ]; then\n{check or ':'}\nexit 0\nfi\n"
            f'echo "{name} $1"\necho "{name} $1" >>$ROOT/fake/calls\n'
            f"case $1 in\ntest)\n{test or ':'}\nln -sfn {path} $ROOT/run/current-system\n;;\n"
            f"boot)\n{boot or ':'}\nsh {FAKES}/install-boot-loader {path}\n;;\nesac\n",
            encoding="utf-8",
        )
        script.chmod(0o755)
        return str(path)

    def watched(self, system: str) -> str:
        """Give the system the unit that watches a start on trial."""
        unit = Path(system, "etc/systemd/system/fediversity-guard-boot.service")
        unit.parent.mkdir(parents=True)
        unit.touch()
        return system

    def run(self, words: list[str]) -> Report:
        return parse_report(self.say(words))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.root}/fake/bin:{FAKES}:/usr/bin:/bin:/usr/sbin:/sbin",
            "GUARD_ROOT": str(self.root),
            "SSH_CONNECTION": "192.0.2.9 4711 192.0.2.1 22",
        }

    def say(self, words: list[str]) -> str:
        return subprocess.run(
            [self.shell, "-c", 'eval "$(cat)"'],
            input=guard_script(words).decode(),
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    def say_in_background(self, words: list[str]) -> None:
        """As a unit, so that a power cut ends it too."""
        payload = next((self.root / "var/lib/fediversity-guard").glob("guard-*"))
        subprocess.run(
            ["systemd-run", "--unit=background", "sh", payload, *words], env=self.environment, check=True, timeout=60
        )

    def wait_for_file(self, name: str) -> None:
        """A file that a stand-in makes when it has come to some place."""
        for _look in range(200):
            if (self.root / "fake" / name).exists():
                return
            time.sleep(0.05)
        raise AssertionError(f"{name} never came")

    def begin(self, system: str, txn: str = "t1", **fields: object) -> Report:
        words = begin_words(Request(txn=txn, owner="somebody", system=system, minimum_free=FreeSpace(0, 0, 0)))
        values = {**LIMITS, **fields}
        return self.run(words + [f"{key}={value}" for key, value in values.items()])

    def confirm(self, txn: str = "t1", *, hold: bool = False, **health: object) -> Report:
        """Follow a transaction as the controller does, to its end."""
        checks = HealthChecks(**health)  # type: ignore[arg-type]
        report = Report()
        for _look in range(20):
            words = confirm_words(txn, 10, seen(report), checks, hold=hold)
            report = self.run([word.replace("patience=30", "patience=1") for word in words])
            if report.record is not None and (not report.record.live or report.record.phase == "checked"):
                return report
        raise AssertionError(f"{txn} did not end: {report}")

    def wait_for(self, phase: str) -> Report:
        for _look in range(200):
            report = self.run(["status"])
            if report.record is not None and report.record.phase == phase:
                return report
            time.sleep(0.1)
        raise AssertionError(f"phase {phase} never came: {report}")

    @property
    def current(self) -> str:
        return str((self.root / "run/current-system").resolve())

    @property
    def profile(self) -> str:
        return str((self.root / "nix/var/nix/profiles/system").resolve())

    @property
    def boot_default(self) -> str:
        conf = (self.root / "boot/loader/loader.conf").read_text(encoding="utf-8")
        entry = self.root / "boot/loader/entries" / conf.removeprefix("default ").strip()
        return entry.read_text(encoding="utf-8").split("init=")[1].split("/init ")[0]

    @property
    def calls(self) -> list[str]:
        path = self.root / "fake/calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    @property
    def journal(self) -> str:
        return (self.root / "var/lib/fediversity-guard/journal").read_text(encoding="utf-8")

    def program(self, name: str, text: str) -> None:
        """A stand-in in front of PATH."""
        path = self.root / "fake/bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def fake(self, name: str, text: str) -> None:
        """Content of a file that the stand-ins read."""
        (self.root / "fake" / name).write_text(text, encoding="utf-8")

    def forget_boot(self) -> None:
        """What a power cut does: units, /run and the running system are gone, the boot default comes up."""
        self.kill_units()
        subprocess.run(["systemctl", "reboot"], env=self.environment, check=True, timeout=60)

    def kill_units(self) -> None:
        for file in (self.root / "fake/units").glob("*.service"):
            subprocess.run(["systemctl", "stop", file.name], env=self.environment, check=True, timeout=60)

    def live_units(self) -> list[str]:
        """Units that still run, after a moment to end in, and armed timers."""
        for _look in range(50):
            live = [file.name for file in (self.root / "fake/units").glob("*") if _alive(file)]
            if not live:
                return []
            time.sleep(0.1)
        return live

    def assert_clean(self, system: str) -> None:
        """Running, committed and default are one, and nothing is armed."""
        assert (self.current, self.profile, self.boot_default) == (system, system, system)
        assert self.live_units() == []
        assert not (self.root / "nix/var/nix/gcroots/fediversity-guard").exists()
        assert [file.name for file in (self.root / "run/fediversity-guard").glob("*")] in ([], ["lock"])


def _alive(file: Path) -> bool:
    if file.suffix == ".timer":
        return True
    try:
        status = Path(f"/proc/{file.read_text(encoding='utf-8').strip()}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "State:\tZ" not in status and "State:\tX" not in status
