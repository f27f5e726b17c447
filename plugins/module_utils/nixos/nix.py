# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The few Nix commands that a build needs, through one subprocess gate.

Only the stable commands (``nix-instantiate``, ``nix-store``) are used: they need no experimental feature and behave the
same from Nix 2.3 on. Settings come from the environment (nix.conf, ``NIX_CONFIG``, ``NIX_REMOTE``) and are not touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError

ERROR_MAX = 2000
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_NOISE = re.compile(r"\(use '--show-trace'[^\n]*\)\n?|^warning: [^\n]*\n", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class Run(Protocol):
    """The subprocess gate: ``AnsibleModule.run_command`` without its options."""

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        """Run *command* and return its exit code, standard output and standard error."""


@dataclass(frozen=True)
class Nix:
    """Where the commands are, and the settings (``--option``) that every one of them gets.

    :param store: path of ``nix-store``.
    :param instantiate: path of ``nix-instantiate``.
    """

    run: Run
    store: str = "nix-store"
    instantiate: str = "nix-instantiate"
    options: Mapping[str, str] = field(default_factory=dict)

    def evaluate(self, expression: str, attribute: str, arguments: Mapping[str, str], *, write: bool) -> Any:
        """The JSON value of *attribute* of the file *expression*, a function that is applied to *arguments*.

        :param arguments: Nix expressions by argument name; see :func:`nix_value`.
        :param write: write the derivations into the store, so that they can be built.
        :raises BackendError: it cannot be evaluated; ``what`` is Nix' error.
        """
        command = [self.instantiate, "--eval", "--strict", "--json", *(["--read-write-mode"] if write else [])]
        command += ["-A", attribute, expression, *self._settings()]
        for name, value in arguments.items():
            command += ["--arg", name, value]
        code, output, error = self.run(command)
        if code != 0:
            raise BackendError(error_text(error), hint="")
        return json.loads(output)

    def invalid(self, paths: Iterable[str]) -> frozenset[str]:
        """Those of *paths* that the store does not have."""
        wanted = sorted(set(paths))
        if not wanted:
            return frozenset()
        code, output, error = self.run([self.store, "--check-validity", "--print-invalid", *wanted, *self._settings()])
        if code != 0:
            raise BackendError(error_text(error))
        return frozenset(output.split())

    def realise(self, derivations: Sequence[str], root: str) -> str:
        """Build *derivations* in one go, as many of them as can be built.

        :param root: path of the indirect garbage collector root of the results (further ones get ``-2``, ``-3`` …).
        :returns: the standard error of the build when one failed, else an empty text.
        """
        code, _output, error = self.run(
            [self.store, "--realise", "--keep-going", "--add-root", root, *derivations, *self._settings()]
        )
        return (error or "nix-store failed without a message") if code != 0 else ""

    def add_root(self, path: str, root: str) -> None:
        """Keep the valid store path *path* from the garbage collector as long as the symbolic link *root* exists.

        :raises BackendError: the link cannot be made.
        """
        code, _output, error = self.run([self.store, "--realise", path, "--add-root", root, *self._settings()])
        if code != 0:
            raise BackendError(error_text(error), where=root)

    def requisites(self, derivation: str) -> frozenset[str]:
        """The derivations that *derivation* is built from, itself included; empty when it is not in the store."""
        code, output, _error = self.run([self.store, "--query", "--requisites", derivation, *self._settings()])
        return frozenset(output.split()) if code == 0 else frozenset()

    def log(self, derivation: str) -> str:
        """The log of the last build of *derivation*; empty when there is none."""
        code, output, _error = self.run([self.store, "--read-log", derivation, *self._settings()])
        return output if code == 0 else ""

    def _settings(self) -> list[str]:
        return [word for name, value in sorted(self.options.items()) for word in ("--option", name, value)]


def nix_value(value: str | Sequence[str] | None) -> str:
    """A text, a list of texts or nothing as a Nix expression that evaluates to exactly that.

    :raises ValueError: a text holds a control character that no path or name holds.
    """
    if value is None:
        return "null"
    if not isinstance(value, str):
        return f"[ {' '.join(nix_value(item) for item in value)} ]"
    if _CONTROL.search(value):
        raise ValueError("a control character")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def error_text(standard_error: str) -> str:
    """What a person needs of Nix' standard error: without colours, warnings and hints, from the first error on."""
    text = _NOISE.sub("", _ANSI.sub("", standard_error)).strip()
    start = text.find("error:")
    text = "\n".join(line.rstrip() for line in text[max(start, 0) :].removeprefix("error:").strip().splitlines())
    return text if len(text) <= ERROR_MAX else f"{text[:ERROR_MAX]} …"
