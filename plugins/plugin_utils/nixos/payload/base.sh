#!/bin/sh
# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The machine's side of the guarded switch (docs/guarded-switch.md). It needs systemd, Nix, util-linux and coreutils, no Python.
# This part comes first: names, limits and small tools. scripts.py joins the parts.
#
#   from the controller:  status [NEW] | begin txn=TXN KEY=VALUE… | confirm TXN WAIT SEEN END [CHECK…] | commit TXN
#                         abort TXN REASON | settle [NEW] | dry NEW | generations [dead | difference OLD NEW] | collect OWNER yes|no NUMBER…
#   from its own units:   activate TXN | watchdog TXN | rollback TXN REASON | booted
#
# Report: lines "@key=value" on standard output; keys may repeat. Times are seconds of the machine's uptime, so clock jumps do not matter.
# The controller sends this text on standard input (variable GUARD_TEXT); `begin` installs it for the units.

# shellcheck disable=SC2034 # parts of one program share their variables

set -u
umask 077
export LC_ALL=C HOME="${HOME:-/root}"

ROOT=${GUARD_ROOT-} # a directory that plays the file system in the tests
CURRENT=$ROOT/run/current-system
BOOTED=$ROOT/run/booted-system
PROFILE=$ROOT/nix/var/nix/profiles/system
CANDIDATE=$ROOT/nix/var/nix/profiles/system-profiles/candidate # what boots once; GRUB's menu takes letters only
GCROOTS=$ROOT/nix/var/nix/gcroots/fediversity-guard
STATE=$ROOT/var/lib/fediversity-guard
RUN=$ROOT/run/fediversity-guard
RECORD=$STATE/transaction
UNIT=fediversity-guard
BOOT_UNIT=etc/systemd/system/fediversity-guard-boot.service # of a system: nix/modules/guard.nix
COMMIT_FAILED='the profile or the boot default could not be set'
BOOT_LIMIT=300  # seconds for one run of the boot loader's installer
CHECK_LIMIT=60  # seconds for the pre-switch checks
RESERVE=64      # KiB set aside, so that a full disk cannot keep the record from being written
STABLE_STEP=0.5 # seconds between two looks at a unit or a record

# --- small tools -------------------------------------------------------------------------------------------------------------

say() { printf '@%s=%s\n' "$1" "$2"; }

resolve() { if [ -e "$1" ]; then readlink -f "$1"; fi; }

now() { read -r NOW _ <"/proc/uptime" && NOW=${NOW%%.*}; }

nap() { sleep "$STABLE_STEP" 2>/dev/null || sleep 1; }

flush() { sync "$1" 2>/dev/null || sync; }

boot_id() { cat /proc/sys/kernel/random/boot_id 2>/dev/null; }

# MiB that are free below a path, empty when df cannot tell.
free_space() { df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print int($4 / 1024) }'; }

# Descriptor 8 holds the lock; every long-lived child gets it closed (8>&-).
lock() { mkdir -p "$RUN" && exec 8>>"$RUN/lock" && flock "$@" 8; }
unlock() { exec 8>&-; }

unit_live() {
  case $(systemctl show -p ActiveState --value "$1" 2>/dev/null) in
    active | activating | deactivating | reloading) return 0 ;;
    *) return 1 ;;
  esac
}

failed_units() {
  systemctl list-units --all --plain --no-legend --state=failed,auto-restart 2>/dev/null | while read -r unit _; do
    case $unit in "$UNIT"*) ;; *) printf '%s ' "$unit" ;; esac
  done
}

# Words of $2 that are not in $1.
added() {
  for word in $2; do
    case " $1 " in *" $word "*) ;; *) printf '%s ' "$word" ;; esac
  done
}

# Words that are in both.
common() {
  for word in $2; do
    case " $1 " in *" $word "*) printf '%s ' "$word" ;; esac
  done
}

# switch-to-configuration: SYSTEM ACTION LIMIT. A file, never a pipe: older versions panic when their reader goes away.
stc() {
  (umask 022 && exec timeout -k 5 "$3" "$1/bin/switch-to-configuration" "$2" >>"$LOG" 2>&1 </dev/null 8>&-)
}
