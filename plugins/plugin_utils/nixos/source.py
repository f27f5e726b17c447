# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is built when a system is given as a flake or a Nix file: names, shell texts, and what Nix answers. Pure.

The attributes are those of nixos-rebuild(8), options --flake, --file and --attr. Evaluation and build are two commands
(nix-instantiate or nix eval, then nix-store --realise), as nixos-rebuild does it for another build host: `nix build
--print-out-paths` came only after Nix 2.8.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.nixos.nix import error_text
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import STORE_PATH

TOPLEVEL = "config.system.build.toplevel"
NO_NIX, NO_EVALUATION, NO_BUILD = 97, 98, 99
"""Exit codes of the shell texts, so that a failure of ssh or tar is not taken for one of Nix."""


_FLAKE_URL = re.compile(r"[0-9A-Za-z][0-9A-Za-z:/?&=%.,_~+@!*\[\]-]*")
_FLAKE_PATH = re.compile(r"/[0-9A-Za-z/.,_~+@=-]*")
_NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]*")
_ATTRIBUTE = re.compile(r"""([A-Za-z_][0-9A-Za-z_'-]*|[0-9]+|"[0-9A-Za-z_.:@+ -]+")""")
_SENT = re.compile(r"/\S*/fediversity-build\.[0-9A-Za-z]+/tree/")
_CONSEQUENCE = re.compile(r"\d+ dependenc(y|ies)\b.*\bfail|^build of .* failed", re.MULTILINE)
_EXCERPT = re.compile(r"\s+\d*\|")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PASSWORD = re.compile(r"(://)[^/@\s']+@")
_NEWS = re.compile(r"(building '|copying path '|downloading '|fetching |this derivation will|these .* will)")


@dataclass(frozen=True)
class Wanted:
    """The system of `machine`: `attribute` of a Nix file or flake, given as an absolute path or the flake's URL."""

    kind: Literal["file", "flake"]
    reference: str
    attribute: str
    machine: str

    @property
    def directory(self) -> PurePath | None:
        """The absolute path of a directory or Nix file of the controller, None for what every host can fetch."""
        return PurePath(self.reference) if self.reference.startswith("/") else None


def wanted(arguments: Mapping[str, Any], machine: str, resolve: Callable[[str], str]) -> Wanted | None:
    """What the task's options `flake`, `file` and `attr` say; None when the system is given as a store path.

    :param machine: the inventory's name of the machine, which may be untrusted text.
    :param resolve: makes a path of the controller absolute (DataLoader.path_dwim).
    :raises InvalidInput: what could be read as something else by Nix, such as an option or a string with `${`.
    """
    attr = arguments.get("attr")
    if arguments.get("flake"):
        return _flake(str(arguments["flake"]), machine if attr is None else str(attr), machine, resolve)
    if arguments.get("file"):
        path = resolve(str(arguments["file"]))
        if re.search(r"[\x00-\x1f\x7f]", path):
            raise InvalidInput(f"{path!r} is not a plain path", where="file")
        return Wanted("file", path, _attribute(attr), machine)
    if attr is not None:
        raise InvalidInput("it needs flake or file", where="attr")
    return None


def _flake(reference: str, name: str, machine: str, resolve: Callable[[str], str]) -> Wanted:
    if "#" in reference:
        raise InvalidInput(f"{reference!r} holds a #", where="flake", hint="Give the name of the system as attr")
    if reference.startswith(("/", "~", "./", "../")) or reference in {".", ".."}:
        reference = resolve(reference)
        if not _FLAKE_PATH.fullmatch(reference):
            allowed = "letters, digits and /.,_~+@=- only"
            raise InvalidInput(f"{reference!r} is not a path that Nix takes for a flake: {allowed}", where="flake")
    elif not _FLAKE_URL.fullmatch(reference):
        raise InvalidInput(f"{reference!r} is not a flake reference", where="flake")
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be a name in nixosConfigurations: letters, digits and _.- only", where="attr"
        )
    return Wanted("flake", reference, f'nixosConfigurations."{name}".{TOPLEVEL}', machine)


def _attribute(attr: Any) -> str:
    if attr is None:
        return TOPLEVEL
    if not re.fullmatch(rf"{_ATTRIBUTE.pattern}(\.{_ATTRIBUTE.pattern})*", str(attr)):
        raise InvalidInput(f"{str(attr)!r} is not an attribute path, such as machines.web1", where="attr")
    return f"{attr}.{TOPLEVEL}"


def shown(wanted: Wanted) -> str:
    """What is built, for a message."""
    name = wanted.attribute.removesuffix(TOPLEVEL).rstrip(".")
    place = _PASSWORD.sub(r"\1***@", wanted.reference)
    return f"{name} of {place}" if name else place


def root_name(machine: str) -> str:
    """File name of the machine's garbage collector root: its own name, or a digest when that is no file name."""
    return machine if _NAME.fullmatch(machine) else hashlib.sha256(machine.encode()).hexdigest()[:32]


def sent_name(wanted: Wanted, directory: PurePath) -> str:
    """Name of the directory at the build host: files keep theirs, because store paths can depend on it."""
    return "source" if wanted.kind == "flake" else directory.name or "source"


def reference_there(wanted: Wanted, directory: PurePath | None) -> str:
    """A shell word for the file or flake on the build host.

    :param directory: what was sent; None if nothing was.
    """
    if directory is None:
        return shlex.quote(wanted.reference)
    place = f'"$1"/tree/{shlex.quote(sent_name(wanted, directory))}'
    if wanted.kind == "flake":
        return f"path:{place}"  # otherwise Nix looks for a git repository above it
    inside = PurePath(wanted.reference).relative_to(directory)
    return place if inside == PurePath() else f"{place}/{shlex.quote(str(inside))}"


def foresee_script(wanted: Wanted, reference: str) -> str:
    """Shell text that evaluates, and prints the store path that a build would give; writes no lock file."""
    evaluate = _evaluate(wanted, reference, ["--no-write-lock-file"])
    return f'{evaluate}nix-store --query --outputs "$derivation" || exit {NO_EVALUATION}\n'


def realise_script(wanted: Wanted, reference: str) -> str:
    """Shell text that evaluates, builds and prints the store path.

    The garbage collector's root is a link in the state directory of the user that builds: every user may make one there
    (/nix/var/nix/gcroots is root's), it outlives the connection and a failed copy, and there is one per machine, so
    that nothing piles up.
    """
    root = f'"$roots"/{root_name(wanted.machine)}'
    return (
        f"{_evaluate(wanted, reference, [])}"
        'roots=${XDG_STATE_HOME:-$HOME/.local/state}/fediversity/systems\nmkdir -p "$roots" || exit\n'
        f'nix-store -Q --realise "$derivation" --add-root {root} --indirect >/dev/null || exit {NO_BUILD}\n'
        f"readlink {root}\n"
    )


def _evaluate(wanted: Wanted, reference: str, flake_options: list[str]) -> str:
    """Sets `derivation`. The lock file of a flake is treated as nixos-rebuild does: by Nix' own default."""
    program = "nix" if wanted.kind == "flake" else "nix-instantiate"
    needed = f"command -v {program} >/dev/null && command -v nix-store >/dev/null || exit {NO_NIX}\n"
    if wanted.kind == "flake":
        options = shlex.join(["--extra-experimental-features", "nix-command flakes", "eval", "--raw", *flake_options])
        fragment = shlex.quote(f"#{wanted.attribute}.drvPath")
        return f"{needed}derivation=$(nix {options} -- {reference}{fragment}) || exit {NO_EVALUATION}\n"
    words = f'nix-instantiate --add-root "$1/derivation" --indirect {reference} -A {shlex.quote(wanted.attribute)}'
    return f'{needed}{words} >/dev/null || exit {NO_EVALUATION}\nderivation=$(readlink "$1/derivation")\n'


def system_path(output: str) -> str:
    """The store path that a shell text has printed.

    :raises BackendError: it is none, or there are several.
    """
    path = output.strip()
    if not STORE_PATH.fullmatch(path):
        raise BackendError(f"Nix did not answer with one store path but with {path[:200]!r}")
    return path


def news(line: str) -> str:
    """What a line of Nix' standard error tells a person who waits; empty if nothing."""
    text = _ANSI.sub("", line).strip()
    return _PASSWORD.sub(r"\1***@", text)[:200].rstrip(":") if _NEWS.match(text) else ""


def nix_error(standard_error: str, sent_from: str) -> str:
    """Nix' own error: the last one that is not merely the consequence of another, without its stack.

    :param sent_from: directory of the controller above what was sent; the reader knows that, not the copy.
    """
    text = _ANSI.sub("", standard_error)
    errors = re.split(r"^(?=[ \t]*error:)", text, flags=re.MULTILINE)[1:]
    causes = [error for error in errors if not _is_consequence(error)] or errors
    lines = causes[-1].strip().splitlines() if causes else text.strip().splitlines()[-5:]
    lines = [line.removeprefix("       ") for line in lines if line.strip() and not _EXCERPT.match(line)]
    said = error_text("\n".join(lines[:16]))
    return _PASSWORD.sub(r"\1***@", _SENT.sub(f"{sent_from.rstrip('/')}/", said)).rstrip(".")


def _is_consequence(error: str) -> bool:
    """A trace's heading, or a failure because another one failed."""
    said = error.strip().removeprefix("error:").strip()
    return not said or said.startswith("…") or bool(_CONSEQUENCE.search(said))
