# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh disable=SC2034,SC2154 # parts of one program share their variables

# --- main: the last part -----------------------------------------------------------------------------------------------------

LOG=/dev/null
VERB=$1
shift
case $0 in
  "$STATE"/guard-*) GUARD=$0 ;;
  *) GUARD=$STATE/guard-${GUARD_HASH:-none} ;;
esac
# The old system's own tools by their store path: /run/current-system moves during the switch. The units inherit them.
case $VERB in
  activate | watchdog | rollback) ;;
  *)
    if load && ! terminal && same_boot; then tools=$r_system_old/sw/bin; else tools=$(resolve "$CURRENT")/sw/bin; fi
    [ ! -d "$tools" ] || PATH=$tools:$PATH
    export PATH
    ;;
esac
SHELL_PATH=$(command -v sh)

case $VERB in
  status | begin | confirm | commit | abort | settle | dry | generations | collect | activate | watchdog | rollback | booted)
    "verb_$VERB" "$@"
    ;;
  *) say error "unknown verb $VERB" && exit 64 ;;
esac
