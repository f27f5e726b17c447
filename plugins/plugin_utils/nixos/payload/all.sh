#!/bin/sh
# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The machine's side of the guarded switch (docs/guarded-switch.md). It needs systemd, Nix, util-linux and coreutils, no Python.
#
#   from the controller:  status [NEW] | begin txn=TXN KEY=VALUE… | confirm TXN WAIT SEEN [CHECK…] | abort TXN REASON | settle | dry NEW
#   from its own units:   activate TXN | watchdog TXN | rollback TXN REASON
#
# Report: lines "@key=value" on standard output; keys may repeat. Times are seconds of the machine's uptime, so clock jumps do not matter.
# The controller sends this text on standard input (variable GUARD_TEXT); `begin` installs it for the units.

# shellcheck disable=SC2034 # the record's fields (r_…) are read through eval in save and report

set -u
umask 077
export LC_ALL=C HOME="${HOME:-/root}"

ROOT=${GUARD_ROOT-} # a directory that plays the file system in the tests
CURRENT=$ROOT/run/current-system
BOOTED=$ROOT/run/booted-system
PROFILE=$ROOT/nix/var/nix/profiles/system
GCROOTS=$ROOT/nix/var/nix/gcroots/fediversity-guard
STATE=$ROOT/var/lib/fediversity-guard
RUN=$ROOT/run/fediversity-guard
RECORD=$STATE/transaction
UNIT=fediversity-guard
COMMIT_FAILED='the profile or the boot default could not be set'
BOOT_LIMIT=300  # seconds for one run of the boot loader's installer
STABLE_STEP=0.5 # seconds between two looks at a unit or a record

# The durable record, one KEY=VALUE per line.
FIELDS='txn owner action rollback system_old system_new profile_old generation_old generation_new boot_id
 phase stage reason method rc restored started activated finished
 activation_limit confirm_limit check_limit contact_limit rollback_limit
 peer address port watch failed_before failed_after interrupted'
r_txn='' r_owner='' r_action='' r_rollback='' r_system_old='' r_system_new='' r_profile_old='' r_generation_old=''
r_generation_new='' r_boot_id='' r_phase='' r_stage='' r_reason='' r_method='' r_rc='' r_restored='' r_started=0 r_activated=0
r_finished='' r_activation_limit=300 r_confirm_limit=30 r_check_limit=60 r_contact_limit=15 r_rollback_limit=60
r_peer='' r_address='' r_port='' r_watch='' r_failed_before='' r_failed_after='' r_interrupted=''

# --- small tools -------------------------------------------------------------------------------------------------------------

say() { printf '@%s=%s\n' "$1" "$2"; }

resolve() { if [ -e "$1" ]; then readlink -f "$1"; fi; }

now() { read -r NOW _ <"/proc/uptime" && NOW=${NOW%%.*}; }

nap() { sleep "$STABLE_STEP" 2>/dev/null || sleep 1; }

flush() { sync "$1" 2>/dev/null || sync; }

boot_id() { cat /proc/sys/kernel/random/boot_id 2>/dev/null; }

# Number of the profile's current generation, empty when there is none.
generation() {
  link=$(readlink "$PROFILE" 2>/dev/null) || return 0
  link=${link##*/}
  case $link in system-*-link) link=${link#system-} && echo "${link%-link}" ;; esac
}

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

# Units of $2 that are not in $1 (both blank-separated).
added() {
  for unit in $2; do
    case " $1 " in *" $unit "*) ;; *) printf '%s ' "$unit" ;; esac
  done
}

# switch-to-configuration: SYSTEM ACTION LIMIT. A file, never a pipe: older versions panic when their reader goes away.
stc() {
  (umask 022 && exec timeout -k 5 "$3" "$1/bin/switch-to-configuration" "$2" >>"$LOG" 2>&1 </dev/null 8>&-)
}

# --- record and journal ------------------------------------------------------------------------------------------------------

load() {
  for key in $FIELDS; do eval "r_$key="; done
  [ -r "$RECORD" ] || return 1
  while IFS= read -r line; do
    key=${line%%=*}
    case " $FIELDS " in *[[:space:]]"$key"[[:space:]]*) eval "r_$key=\${line#*=}" ;; esac
  done <"$RECORD"
  LOG=$STATE/log/$r_txn.log
  [ -n "$r_txn" ]
}

# Written, flushed, renamed, flushed: after a power cut it is the old record or the new one.
save() {
  for key in $FIELDS; do eval "printf '%s=%s\n' \"\$key\" \"\$r_$key\"" || return 1; done >"$RECORD.new" &&
    flush "$RECORD.new" && mv -f "$RECORD.new" "$RECORD" && flush "$STATE"
}

# Journal line: UTC time, uptime, transaction, phase, text.
note() {
  now
  printf '%s %s %s %s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$NOW" "$r_txn" "$r_phase" "$*" >>"$STATE/journal" && flush "$STATE/journal"
}

enter() {
  r_phase=$1
  case $1 in armed | activating | activated | committing) r_stage=$1 ;; esac
  save && note "$2"
}

terminal() { case $r_phase in committed | tested | rolled-back | needs-reboot | failed) return 0 ;; *) return 1 ;; esac; }

# /run is empty after a restart, also where containers share one boot id.
same_boot() { [ -e "$RUN/armed-$r_txn" ] && [ "$r_boot_id" = "$(boot_id)" ]; }

# Uptime at which the loaded transaction is given up, empty when only the lock decides.
deadline() {
  case $r_phase in
    armed | activating) echo $((r_started + r_activation_limit)) ;;
    activated)
      if read -r at 2>/dev/null <"$RUN/contact-$r_txn"; then
        echo $((at + r_check_limit))
      else
        echo $((r_activated + r_confirm_limit))
      fi
      ;;
  esac
}

# SYSTEM: true when its kernel, initial RAM disk, modules or kernel parameters are not the booted ones.
needs_reboot() {
  [ -e "$BOOTED" ] || return 1
  for part in kernel initrd kernel-modules kernel-params; do
    if [ -e "$1/$part" ] && [ "$(resolve "$1/$part")" != "$(resolve "$BOOTED/$part")" ]; then
      cmp -s "$1/$part" "$BOOTED/$part" || return 0
    fi
  done
  return 1
}

report() {
  say current "$(resolve "$CURRENT")"
  say profile "$(resolve "$PROFILE")"
  say booted "$(resolve "$BOOTED")"
  say generation "$(generation)"
  say watchdog "$(if unit_live "$UNIT.service"; then echo yes; else echo no; fi)"
  load || return 0
  now
  for key in $FIELDS; do eval "say \"record_\$key\" \"\$r_$key\""; done
  say same_boot "$(if same_boot; then echo yes; else echo no; fi)"
  limit=$(deadline)
  [ -z "$limit" ] || say remaining $((limit - NOW))
  needs_reboot "$r_system_new" && say needs_reboot yes
  if terminal && [ -r "$LOG" ]; then tail -n 100 "$LOG" | while IFS= read -r line; do say log "$line"; done; fi
  return 0
}

# Lock held: nothing has been armed yet.
refuse() {
  rm -rf "$GCROOTS" "$RUN/armed-$r_txn"
  say result refused
  say error "$1"
  report
  exit 0
}

# --- units -------------------------------------------------------------------------------------------------------------------

# NAME EXTRA-OPTIONS… -- VERB…: a transient unit that runs the installed copy of this file with the old system's tools.
launch() {
  name=$1
  shift
  options=''
  while [ "$1" != -- ]; do options="$options $1" && shift; done
  shift
  # shellcheck disable=SC2086 # options are ours and hold no blanks
  systemd-run --quiet --collect --unit="$UNIT$name" --setenv=PATH="$PATH" --setenv=GUARD_ROOT="$ROOT" $options \
    "$SHELL_PATH" "$GUARD" "$@" >/dev/null 8>&-
}

arm() {
  systemctl stop "$UNIT.service" "$UNIT-backstop.timer" 2>/dev/null # what an earlier transaction may have left
  systemctl reset-failed "$UNIT.service" "$UNIT-backstop.service" "$UNIT-backstop.timer" 2>/dev/null
  launch '' --service-type=exec --property=OOMScoreAdjust=-1000 --property=IgnoreOnIsolate=yes -- watchdog "$r_txn" || return 1
  # A second layer that does not need the first one's process. OnStartupSec: reloads and re-executions restart an OnActiveSec countdown.
  up=$(systemctl show -p UserspaceTimestampMonotonic --value 2>/dev/null)
  up=$((NOW - ${up:-0} / 1000000))
  launch -backstop "--on-startup=$((up + r_activation_limit + r_confirm_limit + r_check_limit + 60))" \
    --timer-property=AccuracySec=1s -- rollback "$r_txn" backstop
}

# Lock held. PHASE TEXT: the end of a transaction; nothing stays armed.
finish() {
  now
  r_finished=$NOW
  r_failed_after=$(failed_units)
  enter "$1" "$2"
  systemctl stop "$UNIT-backstop.timer" 2>/dev/null
  rm -rf "$GCROOTS" "$RUN/armed-$r_txn" "$RUN/contact-$r_txn" "$RUN/regained-$r_txn"
  [ "$VERB" = watchdog ] || systemctl stop "$UNIT.service" 2>/dev/null
  return 0
}

# Lock held; releases it. The rollback runs in its own unit: it may cut the connection that asked for it.
begin_rollback() {
  r_reason=$1
  if [ "$r_rollback" = no ]; then
    finish failed "$1"
    unlock
    return
  fi
  enter rolling-back "$1" || : # a full disk must not keep the old system from coming back
  unlock
  launch "-rollback-$r_txn" --no-block -- rollback "$r_txn" "-" || : # the watchdog takes over when it finds the lock free
}

# --- profile and boot loader -------------------------------------------------------------------------------------------------

set_profile() { (umask 022 && exec timeout 60 nix-env -p "$PROFILE" "$@" >>"$LOG" 2>&1 </dev/null 8>&-); }

# Undo what this transaction did to the profile, by number; never "the one before" and never somebody else's generation.
restore_profile() {
  [ "$(resolve "$PROFILE")" = "$r_system_new" ] || return 0
  made=$(generation)
  [ "$made" != "$r_generation_old" ] || return 0
  if [ -n "$r_generation_old" ]; then
    set_profile --switch-generation "$r_generation_old" || return 1
  elif [ -n "$r_profile_old" ]; then
    set_profile --set "$r_profile_old" || return 1
  else
    rm -f "$PROFILE" "$PROFILE-$made-link"
    return
  fi
  [ -z "$made" ] || set_profile --delete-generations "$made" || :
}

undo_commit() { restore_profile && install_loader "$r_system_old"; }

install_loader() {
  rm -f "$ROOT/boot/loader/loader.tmp" # systemd-boot's installer refuses to run after a crash that left it
  stc "$1" boot "$BOOT_LIMIT"
}

# Lock held, phase activated (or a `boot` action). Profile first, loader second: a crash between them boots the old system.
commit() {
  enter committing 'setting the profile and the boot default' || return 1
  set_profile --set "$r_system_new" || return 1
  install_loader "$r_system_new" || return 1
  r_generation_new=$(generation)
  finish committed "$r_system_new"
}

# --- after a restart ---------------------------------------------------------------------------------------------------------

# Lock held: close a transaction that the machine's restart interrupted.
settle() {
  if [ "$r_stage" = committing ] && [ "$(resolve "$CURRENT")" = "$r_system_new" ] && commit; then
    return # it had passed its checks, and it is what the boot loader chose
  fi
  [ "$r_stage" != committing ] || undo_commit
  r_method=reboot
  r_reason=${r_reason:-the machine restarted before the new system was committed}
  finish rolled-back "$r_reason"
}

# Lock held: nothing of an earlier transaction may be under way when a new one begins.
close_previous() {
  load || return 0
  terminal && return 0
  if ! same_boot; then
    settle
  elif unit_live "$UNIT.service" || unit_live "$UNIT-activate-$r_txn.service" || unit_live "$UNIT-rollback-$r_txn.service"; then
    say result locked
    report
    exit 0
  else
    begin_rollback 'its watchdog is gone'
    [ "$r_rollback" = no ] || {
      say result locked
      report
      exit 0
    }
    lock -n || :
  fi
}

# --- verbs of the controller -------------------------------------------------------------------------------------------------

verb_status() {
  say nixos "$(if [ -e "$ROOT/etc/NIXOS" ] || [ -L "$PROFILE" ]; then echo yes; else echo no; fi)"
  say arch "$(uname -m)"
  say running "$(systemctl is-system-running 2>/dev/null)"
  if [ -n "${1-}" ] && nix-store --check-validity "$1" 2>/dev/null; then
    say valid yes
    needs_reboot "$1" && say wanted_needs_reboot yes
  fi
  report
}

verb_begin() {
  trap '' HUP PIPE # a lost connection must not stop it half-way
  if load && [ "txn=$r_txn" = "$1" ]; then
    say result known # the answer to this very call was lost
    report
    exit 0
  fi
  mkdir -p "$RUN" "$STATE/log"
  if ! lock -n; then
    say result locked
    report
    exit 0
  fi
  close_previous
  for key in $FIELDS; do eval "r_$key="; done
  for pair; do
    key=${pair%%=*}
    case " $FIELDS " in *[[:space:]]"$key"[[:space:]]*) eval "r_$key=\${pair#*=}" ;; esac
  done
  LOG=$STATE/log/$r_txn.log
  r_system_old=$(resolve "$CURRENT")
  r_profile_old=$(resolve "$PROFILE")
  r_generation_old=$(generation)
  r_boot_id=$(boot_id)
  r_failed_before=$(failed_units)
  # shellcheck disable=SC2086 # four words: client address and port, own address and port
  set -- ${SSH_CONNECTION:-}
  r_peer=${1-} r_address=${3-} r_port=${4-}
  now
  r_started=$NOW
  [ -x "$r_system_old/bin/switch-to-configuration" ] || refuse "$CURRENT is not a NixOS system, there is nothing to roll back to"
  set_roots || refuse "cannot write $GCROOTS"
  nix-store --check-validity "$r_system_new" 2>/dev/null || refuse "$r_system_new is not in the machine's Nix store"
  [ -x "$r_system_new/bin/switch-to-configuration" ] || refuse "$r_system_new is not a NixOS system: no bin/switch-to-configuration"
  if [ ! -s "$GUARD" ]; then
    rm -f "$STATE"/guard-*
    { printf '%s\n' "$GUARD_TEXT" >"$GUARD.new" && flush "$GUARD.new" && mv -f "$GUARD.new" "$GUARD"; } || refuse "cannot write $GUARD"
  fi
  find "$STATE/log" -name '*.log' -mtime +30 -exec rm -f {} +
  : >"$RUN/armed-$r_txn"
  enter armed "$r_system_old -> $r_system_new by $r_owner" || refuse "cannot write $RECORD"
  if [ "$r_action" = boot ]; then
    if ! commit; then
      undo_commit
      r_method=loader r_reason=$COMMIT_FAILED
      finish rolled-back "$r_reason"
    fi
  else
    start || refuse "$r_reason"
  fi
  say result started
  report
}

set_roots() {
  mkdir -p "$GCROOTS" && ln -sfn "$r_system_old" "$GCROOTS/old" && ln -sfn "$r_system_new" "$GCROOTS/new"
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

# TXN WAIT SEEN [CHECK…]: follow the transaction for WAIT seconds; check and commit when it is due.
# A connection proves that the machine can be reached only if it was begun after the event: the controller says in SEEN what it knew
# before it connected (activated, restored). Even a login that finds the event done may have been accepted before it.
verb_confirm() {
  trap '' HUP PIPE
  wanted=$1 until=$2 seen=$3
  shift 3
  now
  until=$((NOW + until))
  while load && [ "$r_txn" = "$wanted" ] && ! terminal; do
    now
    if ! same_boot; then
      lock && load && ! terminal && settle
      unlock
    elif [ "$r_phase" = activated ]; then
      [ "$seen" = activated ] || break
      check_and_commit "$@"
      seen=''
      continue
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

check_and_commit() {
  now
  echo "$NOW" >"$RUN/contact-$r_txn"
  note 'contact over a new connection'
  problem=$(health "$@") || problem=${problem:-the health checks could not run}
  lock
  load
  if [ "$r_phase" != activated ]; then
    unlock
  elif [ -n "$problem" ]; then
    begin_rollback "$problem"
  elif [ "$(resolve "$CURRENT")" != "$r_system_new" ]; then
    begin_rollback "$CURRENT is not the system that was deployed"
  elif [ "$r_action" = test ]; then
    finish tested "$r_system_new"
    unlock
  elif commit; then
    unlock
  else
    begin_rollback "$COMMIT_FAILED"
  fi
}

verb_abort() {
  trap '' HUP PIPE
  lock && load && [ "$r_txn" = "$1" ] && ! terminal && begin_rollback "$2"
  report
}

verb_settle() {
  trap '' HUP PIPE
  lock -n && load && ! terminal && ! same_boot && settle
  unlock
  report
}

verb_dry() {
  out=$("$1/bin/switch-to-configuration" dry-activate 2>&1 </dev/null)
  say rc $?
  printf '%s\n' "$out" | while IFS= read -r line; do say log "$line"; done
  nix-store --query --requisites "$(resolve "$CURRENT")" 2>/dev/null | while IFS= read -r line; do say path "$line"; done
}

# --- health checks -----------------------------------------------------------------------------------------------------------

restarts() {
  total=0
  for check; do
    case $check in unit=*) n=$(systemctl show -p NRestarts --value "${check#*=}" 2>/dev/null) && total=$((total + ${n:-0})) ;; esac
  done
  echo "$total"
}

# TRIES-UNTIL COMMAND…: repeat until it succeeds or the uptime is reached.
patiently() {
  limit=$1
  shift
  until "$@"; do
    now
    [ "$NOW" -lt "$limit" ] || return 1
    sleep 1
  done
}

http_status() {
  got=$(curl -ks -o /dev/null -w '%{http_code}' --max-time 10 "$2" 2>/dev/null </dev/null)
  [ "$got" = "$1" ]
}

command_succeeds() { timeout -k 2 30 "$SHELL_PATH" -c "$1" >>"$LOG" 2>&1 </dev/null; }

# stable=SECONDS patience=SECONDS unit=NAME command=TEXT http="STATUS URL": prints the first problem, nothing when all is well.
health() {
  stable=0 patience=30
  for check; do
    case $check in stable=*) stable=${check#*=} ;; patience=*) patience=${check#*=} ;; esac
  done
  now
  limit=$((NOW + patience))
  for check; do
    value=${check#*=}
    case $check in
      unit=*) patiently "$limit" systemctl --quiet is-active "$value" || { echo "unit $value is not active" && return; } ;;
      command=*) patiently "$limit" command_succeeds "$value" || { echo "health command failed: $value" && return; } ;;
      http=*)
        command -v curl >/dev/null || { echo 'HTTP health check: the machine has no curl' && return; }
        # shellcheck disable=SC2086 # two words: status and address
        patiently "$limit" http_status $value || { echo "HTTP health check: ${value#* } answered ${got:-nothing}, not ${value%% *}" && return; }
        ;;
    esac
  done
  before=$(restarts "$@")
  now
  limit=$((NOW + stable))
  while [ "$NOW" -lt "$limit" ]; do
    for check; do
      case $check in unit=*) systemctl --quiet is-active "${check#*=}" || { echo "unit ${check#*=} did not stay active" && return; } ;; esac
    done
    nap
    now
  done
  [ "$(restarts "$@")" = "$before" ] || { echo 'a watched unit keeps restarting' && return; }
  failed=$(added "$r_failed_before" "$(failed_units)")
  [ -z "$failed" ] || echo "failed units: $failed"
}

# --- verbs of the units ------------------------------------------------------------------------------------------------------

verb_activate() {
  lock && load && [ "$r_txn" = "$1" ] && [ "$r_phase" = armed ] || exit 0
  enter activating "$r_system_new/bin/switch-to-configuration test" || begin_rollback "cannot write $RECORD"
  unlock
  tries=15
  while stc "$r_system_new" test "$r_activation_limit"; r_rc=$?; [ "$r_rc" = 11 ] && [ "$tries" -gt 0 ]; do
    tries=$((tries - 1))
    sleep 2
  done
  rc=$r_rc
  lock
  load
  [ "$r_txn" = "$1" ] && [ "$r_phase" = activating ] || exit 0
  r_rc=$rc
  r_failed_after=$(failed_units)
  judge
}

# Lock held; releases it. What switch-to-configuration's exit code means (switch-to-configuration-ng, main.rs).
judge() {
  failed=$(added "$r_failed_before" "$r_failed_after")
  for unit in $r_watch; do
    case " $failed$r_failed_after " in *" $unit "*) failed="$unit $(added "$unit" "$failed")" ;; esac
  done
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

verb_watchdog() {
  while load && [ "$r_txn" = "$1" ] && ! terminal; do
    now
    limit=$(deadline)
    if [ -n "$limit" ] && [ "$NOW" -ge "$limit" ]; then
      case $r_phase in
        activated) verb_rollback "$1" "no confirmation within $((NOW - r_activated)) s" ;;
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
  if [ "$2" != backstop ] && [ -n "$limit" ] && [ "$NOW" -lt "$limit" ]; then
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
  if [ "$r_stage" = armed ]; then
    r_method=disarm # nothing was activated
  elif ! reactivate || ! regained; then
    restart_machine
  fi
  finish rolled-back "$r_reason"
  unlock
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
  systemctl reboot 8>&-
  sleep 60
  systemctl reboot --force --force
  sleep 60
  exit 1
}

# --- main --------------------------------------------------------------------------------------------------------------------

# The old system's own tools by their store path: /run/current-system moves during the switch. The units inherit them.
GUARD=$STATE/guard-${GUARD_HASH:-none}
LOG=/dev/null
case $0 in
  "$STATE"/guard-*) GUARD=$0 ;;
  *)
    if load && ! terminal; then tools=$r_system_old/sw/bin; else tools=$(resolve "$CURRENT")/sw/bin; fi
    [ ! -d "$tools" ] || PATH=$tools:$PATH
    export PATH
    ;;
esac
SHELL_PATH=$(command -v sh)

VERB=$1
shift
case $VERB in
  status | begin | confirm | abort | settle | dry | activate | watchdog | rollback) "verb_$VERB" "$@" ;;
  *) say error "unknown verb $VERB" && exit 64 ;;
esac
