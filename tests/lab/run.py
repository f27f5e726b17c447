# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a command in the world or in a host, as if it were a child of the caller: exit code, signals, terminal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from lab import kernel
from lab.errors import LabError

_FORWARDED = {
    signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
    signal.SIGCONT, signal.SIGTSTP,
}  # fmt: skip
_SI_KERNEL = 0x80  # sent by the terminal: the child, in the same process group, has got it as well


def execute(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    try:
        os.execvpe(command[0], list(command), dict(environment))
    except FileNotFoundError:
        print(f"lab: {command[0]}: not found", file=sys.stderr)
        os._exit(127)
    except OSError as error:
        print(f"lab: {command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(126)


def in_child(action: Callable[[], NoReturn]) -> int:
    """Run `action` in a child process and pass signals to it; its exit code, 128 + n when signal n ended it."""
    watched = _FORWARDED | {signal.SIGCHLD}
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        try:
            kernel.die_with_parent()
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            action()
        except LabError as error:
            print(f"lab: {error}", file=sys.stderr)
        except OSError as error:
            print(f"lab: {error}", file=sys.stderr)
        finally:
            os._exit(125)
    while True:
        event = signal.sigwaitinfo(watched)
        if event.si_signo != signal.SIGCHLD:
            if event.si_code != _SI_KERNEL:
                os.kill(child, event.si_signo)
            continue
        pid, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            continue
        if os.WIFSTOPPED(status):
            if os.WSTOPSIG(status) == signal.SIGTSTP:  # the terminal's; SIGSTOP is systemd's when it ends a host
                os.kill(os.getpid(), signal.SIGSTOP)
                os.kill(child, signal.SIGCONT)
            continue
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def in_host(init: int, command: Sequence[str]) -> int:
    """Run a command as root of a host, given its init as seen in the world (where this process must be)."""
    # The user namespace first: it owns the others.
    kernel.enter(init, ("user", "mnt", "uts", "ipc", "net", "cgroup", "pid"))
    os.setresgid(0, 0, 0)
    os.setgroups([])
    os.setresuid(0, 0, 0)
    os.chdir("/root")
    environment = {
        "HOME": "/root", "USER": "root", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM": os.environ.get("TERM", "dumb"), "LANG": "C.UTF-8",
    }  # fmt: skip
    return in_child(lambda: execute(command, environment))
