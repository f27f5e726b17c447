# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh disable=SC2034,SC2154 # parts of one program share their variables

# --- verbs of the controller -------------------------------------------------------------------------------------------------

verb_status() {
  say nixos "$(if [ -e "$ROOT/etc/NIXOS" ] || [ -L "$PROFILE" ]; then echo yes; else echo no; fi)"
  say arch "$(uname -m)"
  say uid "$(id -u)"
  say running "$(systemctl is-system-running 2>/dev/null)"
  say free_nix "$(free_space "$ROOT/nix/store")"
  say free_boot "$(free_space "$ROOT/boot")"
  say free_state "$(free_space "$ROOT/var/lib")"
  if [ -n "${1-}" ] && nix-store --check-validity "$1" 2>/dev/null; then
    say valid yes
    needs_reboot "$1" && say wanted_needs_reboot yes
  fi
  report
}

# Lock held: nothing has been armed yet. REASON [RESULT]
refuse() {
  rm -rf "$GCROOTS" "$RUN/armed-$r_txn"
  say result "${2:-refused}"
  say error "$1"
  report
  exit 0
}

answer() {
  say result "$1"
  report
  exit 0
}

# Lock held: nothing of an earlier transaction may be under way when a new one begins.
close_previous() {
  load || return 0
  terminal && return 0
  if ! same_boot; then
    after_restart
    terminal || answer locked
  elif unit_live "$UNIT.service" || unit_live "$UNIT-activate-$r_txn.service" || unit_live "$UNIT-rollback-$r_txn.service"; then
    answer locked
  else
    begin_rollback 'its watchdog is gone'
    [ "$r_rollback" = no ] || answer locked
    lock -n || answer locked
  fi
}

verb_begin() {
  trap '' HUP PIPE # a lost connection must not stop it half-way
  if load && [ "txn=$r_txn" = "$1" ]; then answer known; fi # the answer to this very call was lost
  mkdir -p "$RUN" "$STATE/log"
  lock -n || answer locked
  close_previous
  forget
  for pair; do assign "$pair"; done
  LOG=$STATE/log/$r_txn.log
  r_system_old=$(resolve "$CURRENT")
  r_profile_old=$(resolve "$PROFILE")
  r_generation_old=$(generation)
  r_boot_id=$(boot_id)
  r_failed_before=$(failed_units)
  # shellcheck disable=SC2046 # four words: client address and port, own address and port
  set -- $(ssh_connection)
  r_peer=${1-} r_address=${3-} r_port=${4-}
  now
  r_started=$NOW
  [ -x "$r_system_old/bin/switch-to-configuration" ] || refuse "$CURRENT is not a NixOS system, there is nothing to roll back to"
  check_space "$ROOT/nix/store" "$r_free_nix"
  check_space "$ROOT/boot" "$r_free_boot"
  check_space "$STATE" "$r_free_state"
  set_roots
  [ -x "$r_system_new/bin/switch-to-configuration" ] || refuse "$r_system_new is not a NixOS system: no bin/switch-to-configuration"
  check_number
  install_guard || refuse "cannot write $GUARD"
  find "$STATE/log" -name '*.log' -mtime +30 -exec rm -f {} +
  check_pre_switch
  if wants_restart; then
    r_once=yes
    problem=$(once_impossible)
    [ -z "$problem" ] || refuse "it needs a restart, and this machine cannot start a system on trial: $problem"
  fi
  : >"$RUN/armed-$r_txn"
  enter armed "$r_system_old -> $r_system_new by $r_owner" || refuse "cannot write $RECORD"
  if [ "$r_action" = boot ] && [ "$r_once" != yes ]; then
    if ! commit; then
      r_method=loader r_reason=$COMMIT_FAILED ended=rolled-back
      undo_commit || r_reason="$COMMIT_FAILED, nor could the old ones be put back" ended=failed
      finish "$ended" "$r_reason"
    fi
  else
    start || refuse "$r_reason"
  fi
  answer started
}

# PATH MiB: refuse while less is free there; nothing is asked of a file system whose size is unknown.
check_space() {
  free=$(free_space "$1")
  [ -z "$free" ] || [ "$free" -ge "${2:-0}" ] || refuse "only $free MiB are free on $1, $2 MiB are asked for"
}

# The number that is rolled back to must still be the system that it was when the controller looked.
check_number() {
  [ -z "$r_number" ] || [ "$(resolve "$PROFILE-$r_number-link")" = "$r_system_new" ] ||
    refuse "generation $r_number is not $r_system_new any more"
}

install_guard() {
  [ -e "$STATE/reserve" ] || dd if=/dev/zero of="$STATE/reserve" bs=1024 count="$RESERVE" 2>/dev/null || return 1
  [ ! -s "$GUARD" ] || return 0
  rm -f "$STATE"/guard-*
  printf '%s\n' "$GUARD_TEXT" >"$GUARD.new" && flush "$GUARD.new" && mv -f "$GUARD.new" "$GUARD"
}

# The checks of the new system before anything is armed. Systems of before 2025 do not know the action and say how they are used.
check_pre_switch() {
  stc "$r_system_new" check "$CHECK_LIMIT"
  case $? in
    0 | 11) return ;; # 11: somebody else's run, which the activation waits for
  esac
  ! grep -q '^Usage:' "$LOG" || return 0
  refuse "a pre-switch check of the new system failed: $(tail -n 5 "$LOG" | tr '\n' ' ')"
}

# Roots made by Nix itself: a garbage collection that is under way does not see a link that was made after it had begun.
set_roots() {
  if ! mkdir -p "$GCROOTS" || ! root "$r_system_old" old; then refuse "cannot write $GCROOTS"; fi
  if ! root "$r_system_new" new || ! nix-store --check-validity "$r_system_new" 2>/dev/null; then
    refuse "$r_system_new is not in the machine's Nix store" missing
  fi
}

root() { nix-store --realise "$1" --add-root "$GCROOTS/$2" >/dev/null 2>>"$LOG" 8>&-; }

# As sshd says it: client address and port, own address and port. sudo takes it from the environment, so the parents are asked too.
ssh_connection() {
  pid=$$
  while [ "${pid:-0}" -gt 1 ]; do
    said=$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | sed -n 's/^SSH_CONNECTION=//p')
    if [ -n "$said" ]; then echo "$said" && return; fi
    pid=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null)
  done
}

start() {
  if [ "$r_rollback" != no ] && ! arm; then
    r_reason='systemd did not start the watchdog'
    finish rolled-back "$r_reason"
    return 1
  fi
  if ! launch "-activate-$r_txn" --no-block --service-type=oneshot "--property=TimeoutStartSec=$((r_activation_limit + 30))" \
    --property=TimeoutStopSec=5 -- activate "$r_txn"; then
    r_reason='systemd did not start the activation'
    finish rolled-back "$r_reason"
    return 1
  fi
  unlock
}

# TXN WAIT SEEN END [CHECK…]: follow the transaction for WAIT seconds; when it is due, check it and END: `commit` it, or `hold` it.
# A connection proves that the machine can be reached only if it was begun after the event: the controller says in SEEN what it knew
# before it connected (activated, restored). Even a login that finds the event done may have been accepted before it.
verb_confirm() {
  trap '' HUP PIPE
  wanted=$1 until=$2 seen=$3 end=$4
  shift 4
  now
  until=$((NOW + until))
  while load && [ "$r_txn" = "$wanted" ] && ! terminal; do
    now
    if ! same_boot && [ "$r_phase.$(resolve "$CURRENT")" != "booting.$r_system_new" ]; then
      lock && load && ! terminal && ! same_boot && after_restart
      unlock
    elif [ "$r_phase" = activated ]; then
      [ "$seen" = activated ] || break
      check_and_end "$end" "$@"
      seen=''
      continue
    elif [ "$r_phase" = checked ]; then
      break
    elif [ "$r_restored" = yes ]; then
      [ "$seen" = restored ] || break
      : >"$RUN/regained-$r_txn"
    fi
    [ "$NOW" -lt "$until" ] || break
    nap
  done
  if terminal && lock -w 5; then unlock; fi # whoever ended it has let go of everything now
  report
}

check_and_end() {
  end=$1
  shift
  now
  [ -e "$RUN/contact-$r_txn" ] || echo "$NOW" >"$RUN/contact-$r_txn" # the first contact sets the limit of the checks
  note 'contact over a new connection'
  problem=$(health "$@") || problem=${problem:-the health checks could not run}
  lock
  load
  if [ "$r_txn" != "$wanted" ] || [ "$r_phase" != activated ]; then
    unlock
  elif [ -n "$problem" ]; then
    begin_rollback "$problem"
  elif [ "$end" = hold ]; then
    now
    r_checked=$NOW
    if enter checked "held for at most $r_hold_limit s"; then unlock; else begin_rollback "cannot write $RECORD"; fi
  else
    end_well
  fi
}

# Lock held; releases it. Activated and checked: the new system stays.
end_well() {
  if [ "$(resolve "$CURRENT")" != "$r_system_new" ]; then
    begin_rollback "$CURRENT is not the system that was deployed"
  elif [ "$r_once" = yes ] && [ "$(resolve "$BOOTED")" != "$r_system_new" ]; then
    begin_rollback "$BOOTED is not the system that was deployed"
  elif [ "$r_action" = test ]; then
    [ "$r_once" != yes ] || unstage_candidate || :
    finish tested "$r_system_new"
    unlock
  elif commit; then
    unlock
  else
    begin_rollback "$COMMIT_FAILED"
  fi
}

# TXN: the decision that a held transaction waits for.
verb_commit() {
  trap '' HUP PIPE
  lock
  if load && [ "$r_txn" = "$1" ] && [ "$r_phase" = checked ] && same_boot; then end_well; else unlock; fi
  report
}

verb_abort() {
  trap '' HUP PIPE
  lock && load && [ "$r_txn" = "$1" ] && ! terminal && [ "$r_phase" != rolling-back ] && same_boot && begin_rollback "$2"
  unlock
  report
}

verb_settle() {
  trap '' HUP PIPE
  lock -n && load && ! terminal && ! same_boot && after_restart
  unlock
  verb_status "${1-}"
}

verb_dry() {
  out=$("$1/bin/switch-to-configuration" dry-activate 2>&1 </dev/null)
  say rc $?
  printf '%s\n' "$out" | while IFS= read -r line; do say log "$line"; done
  nix-store --query --requisites "$(resolve "$CURRENT")" 2>/dev/null | while IFS= read -r line; do say path "$line"; done
}

# --- the activation, in its own unit -----------------------------------------------------------------------------------------

verb_activate() {
  lock && load && [ "$r_txn" = "$1" ] && [ "$r_phase" = armed ] || exit 0
  if [ "$r_once" = yes ]; then
    enter activating 'giving the new system to the boot loader, for one start' || { begin_rollback "cannot write $RECORD"; return; }
    unlock
    restart_into_candidate
    return
  fi
  enter activating "$r_system_new/bin/switch-to-configuration test" || { begin_rollback "cannot write $RECORD"; return; }
  unlock
  tries=15
  while stc "$r_system_new" test "$r_activation_limit"; r_rc=$?; [ "$r_rc" = 11 ] && [ "$tries" -gt 0 ]; do
    tries=$((tries - 1))
    # a rollback in this pause must know that nothing has been activated
    note_code "$1" 11 || :
    sleep 2
    note_code "$1" '' || exit 0 # the watchdog ends it
  done
  rc=$r_rc
  lock
  load
  [ "$r_txn" = "$1" ] && [ "$r_phase" = activating ] || exit 0
  r_rc=$rc
  r_failed_after=$(failed_units)
  judge
}

# TXN CODE: into the record, unless the transaction is being rolled back.
note_code() {
  lock
  load
  if [ "$r_txn" != "$1" ] || [ "$r_phase" != activating ]; then exit 0; fi
  r_rc=$2
  save
  saved=$?
  unlock
  return "$saved"
}

# Lock held; releases it. What switch-to-configuration's exit code means (switch-to-configuration-ng, main.rs).
judge() {
  failed=$(unacceptable "$r_failed_before" "$r_failed_after")
  case $r_rc in
    0) activated ;;
    4)
      if grep -q 'Failed to run activate script' "$LOG"; then
        begin_rollback 'the activation script failed'
      elif [ -n "$failed" ]; then
        begin_rollback "failed units: $failed"
      else
        activated
      fi
      ;;
    1) begin_rollback 'switch-to-configuration failed (a pre-switch check, or an error before or during the switch)' ;;
    2) begin_rollback 'the activation script failed' ;;
    11) begin_rollback 'another switch-to-configuration held its lock all the time' ;;
    100) r_reason='the new system can only be started by a restart' && finish needs-reboot "$r_reason" && unlock ;;
    124 | 137) begin_rollback "the activation took longer than $r_activation_limit s" ;;
    *) begin_rollback "switch-to-configuration ended with code $r_rc" ;;
  esac
}

activated() {
  now
  r_activated=$NOW
  if enter activated "exit code $r_rc"; then unlock; else begin_rollback "cannot write $RECORD"; fi
}
