# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh disable=SC2034,SC2154 # parts of one program share their variables

# --- units -------------------------------------------------------------------------------------------------------------------

# NAME EXTRA-OPTIONS… -- VERB…: a transient unit that runs the installed copy of this program with the old system's tools.
launch() {
  name=$1
  shift
  options=''
  while [ "$1" != -- ]; do options="$options $1" && shift; done
  shift
  program=$GUARD
  [ -s "$program" ] || for program in "$STATE"/guard-*; do break; done # a controller of another version: what began it goes on
  # shellcheck disable=SC2086 # options are ours and hold no blanks
  systemd-run --quiet --collect --unit="$UNIT$name" --setenv=PATH="$PATH" --setenv=GUARD_ROOT="$ROOT" $options \
    "$SHELL_PATH" "$program" "$@" >/dev/null 8>&-
}

arm() {
  systemctl stop "$UNIT.service" "$UNIT-backstop.timer" 2>/dev/null # what an earlier transaction may have left
  systemctl reset-failed "$UNIT.service" "$UNIT-backstop.service" "$UNIT-backstop.timer" 2>/dev/null
  launch '' --service-type=exec --property=OOMScoreAdjust=-1000 --property=IgnoreOnIsolate=yes \
    --property=Restart=on-failure --property=RestartSec=1 --property=StartLimitIntervalSec=0 -- watchdog "$r_txn" || return 1
  # A second layer that does not need the first one's process. OnStartupSec: reloads and re-executions restart an OnActiveSec countdown.
  up=$(systemctl show -p UserspaceTimestampMonotonic --value 2>/dev/null)
  up=$((NOW - ${up:-0} / 1000000))
  all=$((r_activation_limit + r_confirm_limit + r_check_limit + r_hold_limit + 60))
  [ "$r_once" != yes ] || all=$((all + r_reboot_limit + BOOT_LIMIT))
  launch -backstop "--on-startup=$((up + all))" --timer-property=AccuracySec=1s -- rollback "$r_txn" backstop
}

# Lock held. PHASE TEXT: the end of a transaction; nothing stays armed.
finish() {
  now
  r_finished=$NOW
  r_failed_after=$(failed_units)
  enter "$1" "$2"
  systemctl stop "$UNIT-backstop.timer" "$UNIT-boot-trial.service" 2>/dev/null
  rm -rf "$GCROOTS" "$RUN/armed-$r_txn" "$RUN/contact-$r_txn" "$RUN/regained-$r_txn"
  [ "$VERB" = watchdog ] || systemctl stop "$UNIT.service" 2>/dev/null
  return 0
}

# Lock held; releases it. The rollback runs in its own unit: it may cut the connection that asked for it.
begin_rollback() {
  r_reason=$(printf '%s' "$1" | tr '\n\r' '  ')
  if [ "$r_rollback" = no ]; then
    [ "$VERB" = activate ] || systemctl stop "$UNIT-activate-$r_txn.service" 2>/dev/null
    [ "$r_stage" != committing ] || undo_commit || r_reason="$r_reason; the profile or the boot default could not be put back"
    unstage_candidate
    finish failed "$r_reason"
    unlock
    return
  fi
  enter rolling-back "$r_reason" || : # a full disk must not keep the old system from coming back
  unlock
  launch "-rollback-$r_txn" --no-block -- rollback "$r_txn" "-" || : # the watchdog takes over when it finds the lock free
}

# --- what the units run ------------------------------------------------------------------------------------------------------

verb_watchdog() {
  while load && [ "$r_txn" = "$1" ] && ! terminal; do
    now
    limit=$(deadline)
    if [ -n "$limit" ] && [ "$NOW" -ge "$limit" ]; then
      case $r_phase in
        activated)
          if [ -e "$RUN/contact-$r_txn" ]; then
            verb_rollback "$1" "the health checks took longer than $r_check_limit s"
          else
            verb_rollback "$1" "no confirmation within $((NOW - r_activated)) s"
          fi
          ;;
        checked) verb_rollback "$1" "no decision within $((NOW - r_checked)) s after the checks" ;;
        booting) verb_rollback "$1" "the restart did not happen within $BOOT_LIMIT s" ;;
        *) verb_rollback "$1" "the activation took longer than $r_activation_limit s" ;;
      esac
    elif [ -z "$limit" ] && lock -n; then
      unlock # whoever was committing or rolling back is gone
      verb_rollback "$1" 'the commit was interrupted'
    fi
    sleep 1
  done
}

# TXN REASON: idempotent; does nothing once the transaction has ended.
verb_rollback() {
  lock
  if ! load || [ "$r_txn" != "$1" ] || terminal || ! same_boot; then
    unlock
    return
  fi
  # The deadline may have moved while the lock was awaited: a contact has come.
  now
  limit=$(deadline)
  if [ "$2" != backstop ] && [ "$2" != - ] && [ -n "$limit" ] && [ "$NOW" -lt "$limit" ]; then
    unlock
    return
  fi
  r_reason=${r_reason:-$2}
  enter rolling-back "$r_reason" || :
  systemctl stop "$UNIT-activate-$r_txn.service" 2>/dev/null
  if [ "$r_stage" = activating ] && [ -z "$r_rc" ]; then
    r_interrupted=yes
    rm -f "$ROOT"/run/nixos/start-list "$ROOT"/run/nixos/restart-list "$ROOT"/run/nixos/reload-list
  fi
  if [ "$r_stage" = armed ] || [ "$r_rc" = 11 ]; then
    r_method=disarm # nothing was activated; 11: it never got switch-to-configuration's lock
  elif [ "$r_once" = yes ]; then
    give_up_candidate
  elif ! reactivate || ! regained; then
    restart_machine
  fi
  finish rolled-back "$r_reason"
  unlock
}

# The candidate that runs can only be left by a restart; one that was only staged is taken from the boot loader.
give_up_candidate() {
  case $r_stage in
    activating) unstage_candidate && r_method=loader && return ;;
    booting) unstage_candidate ;;
    committing) undo_commit ;;
  esac
  restart_machine
}

reactivate() {
  # shellcheck disable=SC2046 # unit names hold no blanks
  systemctl reset-failed $(added "$r_failed_before" "$(failed_units)") 2>/dev/null
  loader=0
  [ "$r_stage" != committing ] || undo_commit || loader=1
  stc "$r_system_old" test "$r_rollback_limit"
  case $? in
    0) ;;
    4) [ -z "$(added "$r_failed_before" "$(failed_units)")" ] || return 1 ;;
    *) return 1 ;;
  esac
  r_method=reactivate
  r_restored=yes
  save || :
  note 'the old system is active again'
  [ "$loader" = 0 ]
}

# A new connection of the controller, or else the machine's own view of itself, says that it can be reached.
regained() {
  now
  limit=$((NOW + r_contact_limit))
  while [ "$NOW" -lt "$limit" ]; do
    [ ! -e "$RUN/regained-$r_txn" ] || return 0
    nap
    now
  done
  self_test && note 'no contact, but address, route and SSH server are in order'
}

self_test() {
  address=${r_address:-127.0.0.1} port=${r_port:-22}
  if [ -n "$r_address" ]; then ip -o address show | grep -qF " $address/" || return 1; fi
  ssh-keyscan -T 3 -p "$port" "$address" 2>/dev/null | grep -q . || return 1
  route=$(ip route get "${r_peer:-192.0.2.1}" 2>/dev/null) || return 1
  case $route in *' via '*) hop=${route#* via } && hop=${hop%% *} ;; *) hop=${r_peer:-} ;; esac
  [ -n "$hop" ] || return 0
  ssh-keyscan -T 2 "$hop" >/dev/null 2>&1 # any packet: the neighbour table then tells whether the next hop answers
  ! ip neighbour show "$hop" | grep -qE 'FAILED|INCOMPLETE'
}

restart_machine() {
  r_method=reboot
  enter reboot-rollback "$r_reason" || :
  sync
  systemctl reboot --check-inhibitors=no 8>&-
  sleep 60
  systemctl reboot --force --force
  sleep 60
  exit 1
}
