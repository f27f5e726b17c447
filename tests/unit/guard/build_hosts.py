# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build hosts for unit tests: real shells and tar behind a stand-in for ssh, with a scripted Nix."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.build import BuildHost

TOOLS = ("sh", "tar", "tee", "rm", "cat", "readlink", "ln", "mkdir", "xargs", "grep", "sleep", "cp", "ls")


@dataclass(frozen=True)
class Farm:
    """Hosts below `directory`; the programs of one are those of its folder and a few tools, no Nix of this machine."""

    directory: Path

    def host(self, name: str, **programs: str) -> BuildHost:
        """A host that is reached by ssh and has these programs (shell texts; _ stands for -)."""
        folder = self.directory / name
        folder.mkdir()
        own = {program.replace("_", "-"): text for program, text in programs.items()}
        own["mktemp"] = f'{shutil.which("mktemp")} "$@" | tee -a "$here/made"'
        for tool in set(TOOLS) - set(own):
            (folder / tool).symlink_to(shutil.which(tool) or tool)
        for program, text in own.items():
            path = folder / program
            with path.open("x", encoding="utf-8") as file:  # never through a link to the real one
                file.write(
                    f'#!/bin/sh\nhere={folder}\n[ ${{0##*/}} = mktemp ] || echo "${{0##*/}} $*" >>$here/said\n{text}\n'
                )
            path.chmod(0o755)
        ssh = self.directory / "ssh"
        ssh.write_text(
            f'#!/bin/sh\nexport HOME={self.directory}/home-$1 PATH={self.directory}/$1; eval "exec $2"\n',
            encoding="utf-8",
        )
        ssh.chmod(0o755)
        return BuildHost(name, (str(ssh), name))

    def said(self, name: str) -> list[str]:
        """Command lines of the host's programs, in order."""
        path = self.directory / name / "said"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def text(self, path: str) -> str:
        return (self.directory / path).read_text(encoding="utf-8")

    def leftovers(self, name: str) -> list[str]:
        """Directories that parcels made on the host and that still exist; there must have been some."""
        return [line for line in self.text(f"{name}/made").splitlines() if Path(line).exists()]
