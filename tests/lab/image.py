# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image all hosts share: a Debian made by mmdebstrap once, and the lab's own files in a layer above it.

The Debian is cached under a key of its suite and package list and holds nothing of the lab; it is stored with the
shifted owners of the hosts' user namespace (launch.FIRST_ID). It is fetched with the machine's own apt settings.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from lab import kernel
from lab.disk import Disk, File
from lab.errors import LabError
from lab.launch import FIRST_ID, IDS
from lab.paths import CHECKOUT

NIXPKGS = CHECKOUT / "tests/lab/nixpkgs"

PACKAGES = (
    "systemd-sysv", "dbus", "openssh-server", "python3", "iproute2", "procps", "ca-certificates", "curl", "nix-bin",
    "qemu-guest-agent", "postgresql", "redis-server", "knot", "knot-dnsutils", "nginx-light",
)  # fmt: skip

# Nothing of Debian starts by itself except what systemd itself needs: a host enables what it is for.
_CLEAN_UP = """
rm -rf "$1"/etc/systemd/system/*.wants "$1"/etc/ssh/ssh_host_*
rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/apt.conf.d/99mmdebstrap
rm -f "$1"/etc/machine-id "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/systemd/system/sshd.service
mkdir -p "$1"/nix "$1"/etc/lab
"""
_REVISION = 1  # raise when _CLEAN_UP changes

_UNITS = "/etc/systemd/system"

_MASKED = (
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "dev-hugepages.mount", "dev-mqueue.mount",
    "sys-fs-fuse-connections.mount", "systemd-modules-load.service", "systemd-journal-flush.service",
    "console-getty.service", "getty@tty1.service", "apt-daily.timer", "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer",
)  # fmt: skip

_NETWORK_UNIT = """\
[Unit]
Description=Network of a lab host (/etc/lab/network)
DefaultDependencies=no
Wants=network.target network-online.target
Before=lab-stage2.service network.target network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStartPre=/bin/sh -c 'echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify'
ExecStart=/bin/ip -force -batch /etc/lab/network
"""

_AGENT_UNIT = """\
[Unit]
Description=QEMU guest agent of a lab host

[Service]
ExecStartPre=/bin/rm -f /run/lab/agent.sock
ExecStart=/usr/sbin/qemu-ga -m unix-listen -p /run/lab/agent.sock -t /run
Restart=on-failure
"""

# For the hosts and for `lab exec`: a store of root's own, nothing is ever fetched.
NIX_CONFIG = """\
experimental-features = nix-command
substituters =
sandbox = false
build-users-group =
"""


def want(*units: str, by: str = "multi-user.target") -> list[File]:
    """Enable units at boot."""
    return [File(f"{_UNITS}/{by}.wants/{unit}", link=f"/lib/systemd/system/{unit}") for unit in units]


def _lab_files() -> list[File]:
    """Identity as a NixOS machine, network, guest agent, and the boot of NixOS systems (tests/lab/nixpkgs)."""
    boot = NIXPKGS / "lab-stage2.service"
    return [
        File("/etc/NIXOS"),
        File("/etc/nix/nix.conf", NIX_CONFIG),
        File("/etc/ssh/sshd_config.d/lab.conf", "HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\n"),
        File("/usr/lib/systemd/system/lab-network.service", _NETWORK_UNIT),
        File("/usr/lib/systemd/system/lab-agent.service", _AGENT_UNIT),
        File("/usr/lib/systemd/system/lab-stage2.service", boot.read_text(encoding="utf-8")),
        *_copies(NIXPKGS / "stage2.sh", *sorted((NIXPKGS / "system").iterdir())),
        File("/usr/bin/bootctl", (NIXPKGS / "bootctl").read_text(encoding="utf-8"), 0o755),
        *want("lab-network.service", "lab-stage2.service", by="sysinit.target"),
        *want("lab-agent.service", "ssh.service"),
        File(f"{_UNITS}/sshd.service", link="/lib/systemd/system/ssh.service"),
        *(File(f"{_UNITS}/{unit}", link="/dev/null") for unit in _MASKED),
    ]


def _copies(*files: Path) -> list[File]:
    """Files of tests/lab/nixpkgs at the same place below /usr/lib/lab."""
    return [
        File(f"/usr/lib/lab/{file.relative_to(NIXPKGS)}", file.read_text(encoding="utf-8"), file.stat().st_mode & 0o755)
        for file in files
        if file.is_file()
    ]


def write_lab_layer(directory: Path, image: Path) -> None:
    """The layer with the lab's own files, between the image and the hosts' disks."""
    directory.mkdir()
    directory.chmod(0o755)
    os.chown(directory, FIRST_ID, FIRST_ID)
    Disk(directory, (image,)).write(_lab_files())


def suite() -> str:
    """Code name of the machine's own Debian: its apt sources and keys are for that one."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "bookworm")


def location(cache: Path) -> Path:
    recipe = "\n".join([suite(), platform.machine(), str(FIRST_ID), str(_REVISION), *PACKAGES])
    return cache / f"image-{suite()}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def ensure(cache: Path, progress: Callable[[str], None]) -> Path:
    """The image's root directory; builds it when it is not in the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    wanted = location(cache)
    with open(cache / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wanted.is_dir():
            for stale in cache.glob("building-*"):
                shutil.rmtree(stale)
            building = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
            try:
                _build(building, progress)
                building.rename(wanted)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    return wanted


def _build(root: Path, progress: Callable[[str], None]) -> None:
    progress(f"building the host image ({suite()}, {len(PACKAGES)} packages and what they need): about a minute, once")
    root.chmod(0o755)
    os.chown(root, FIRST_ID, FIRST_ID)
    with tempfile.TemporaryDirectory(prefix="lab-image-") as scratch:
        options = Path(scratch, "apt.conf")
        options.write_text(_apt_options(), encoding="utf-8")
        command = [
            "mmdebstrap", "--mode=root", "--format=tar", "--variant=minbase", f"--include={','.join(PACKAGES)}",
            f"--aptopt={options}", f"--customize-hook={_CLEAN_UP}", suite(), "-", "-",
        ]  # fmt: skip
        sources = Path(scratch, "sources.list")
        sources.write_text(_apt_sources(), encoding="utf-8")
        with open(sources, "rb") as stdin:
            maker = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        unpacked = _start_unpacking(root, maker)
        messages: list[str] = []
        try:
            for raw in maker.stderr or ():
                messages.append(raw.decode(errors="replace").rstrip())
                if messages[-1].startswith("I: "):
                    progress(f"image: {messages[-1][3:]}")
        except BaseException:
            maker.terminate()
            raise
        finally:
            failed = bool(maker.wait()) | bool(os.waitpid(unpacked, 0)[1])
    if failed:
        raise LabError(
            "the host image could not be built: " + " / ".join(line for line in messages if line.startswith("E: ")),
            "mmdebstrap, with the apt sources of this machine",
            "check that `apt-get update` works here and that the disk has 1 GB free, then try again",
        )


def _start_unpacking(root: Path, maker: subprocess.Popen[bytes]) -> int:
    """Start tar as root of a user namespace with the hosts' ids, reading from `maker`; its process id."""
    ready, go = os.pipe()
    pid = kernel.clone(kernel.NEWUSER)
    if pid == 0:
        try:
            os.close(go)
            os.read(ready, 1)
            os.chdir(root)  # before the ids change: the way to the cache may be closed to others
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            if maker.stdout is not None:
                os.dup2(maker.stdout.fileno(), 0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # without input mmdebstrap has said why
            os.execvp("tar", ["tar", "--extract", "--numeric-owner", "--preserve-permissions", "--exclude=./dev/*"])
        finally:
            os._exit(1)
    os.close(ready)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text(f"0 {FIRST_ID} {IDS}", encoding="ascii")
    os.close(go)
    if maker.stdout is not None:
        maker.stdout.close()
    return pid


def _apt_sources() -> str:
    """One-line sources of the machine for its own suite, without the sources of others that are configured beside."""
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    form = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)|$(ORIGIN)"
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    name, lines = suite(), []
    for row in dict.fromkeys(listing.splitlines()):
        uri, release, component, signed_by, origin = row.split("|")
        ours = release in (name, f"{name}-updates", f"{name}-security") and origin in (
            "Debian",
            "Ubuntu",
            "",
            "$(ORIGIN)",
        )
        if ours and component in ("main", "universe"):
            key = signed_by if signed_by.startswith("/") else keyring
            option = f"[signed-by={key}] " if Path(key).exists() else ""
            lines.append(f"deb {option}{uri} {release} {component}")
    if not lines:
        raise LabError(
            f"apt has no source for {name} main",
            "/etc/apt/sources.list, /etc/apt/sources.list.d",
            "add the distribution's own",
        )
    return "\n".join(lines) + "\n"


def _apt_options() -> str:
    """How the machine fetches (proxies, certificates, checks): its Acquire settings."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    wanted = (
        "Acquire::http",
        "Acquire::https",
        "Acquire::ftp",
        "Acquire::Check",
        "Acquire::Retries",
        "Acquire::ForceIPv",
    )
    return "".join(f"{line}\n" for line in dump.splitlines() if line.startswith(wanted))
