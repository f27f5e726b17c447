# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh disable=SC2034,SC2154 # parts of one program share their variables

# --- record and journal ------------------------------------------------------------------------------------------------------

# The durable record, one KEY=VALUE per line. After a restart of the machine only this is left of a transaction.
FIELDS='txn owner action rollback policy reboot once number system_old system_new profile_old generation_old generation_new boot_id
 phase stage reason method rc restored started activated checked finished
 activation_limit confirm_limit check_limit hold_limit reboot_limit contact_limit rollback_limit
 free_nix free_boot free_state peer address port watch failed_before failed_after interrupted left'
PHASES='armed activating booting activated checked committing' # on the way forward
forget() { for key in $FIELDS; do eval "r_$key="; done; }
forget

load() {
  forget
  [ -r "$RECORD" ] || return 1
  while IFS= read -r line; do assign "$line"; done <"$RECORD"
  LOG=$STATE/log/$r_txn.log
  [ -n "$r_txn" ]
}

# KEY=VALUE into the record in memory; unknown keys (of another version) are left out.
assign() {
  key=${1%%=*}
  case " $FIELDS " in *[[:space:]]"$key"[[:space:]]*) eval "r_$key=\${1#*=}" ;; esac
}

# Written, flushed, renamed, flushed: after a power cut it is the old record or the new one.
save() {
  write_record || { rm -f "$STATE/reserve" && write_record; }
}

write_record() {
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
  case " $PHASES " in *" $1 "*) r_stage=$1 ;; esac
  save && note "$2"
}

terminal() { case $r_phase in committed | tested | rolled-back | needs-reboot | failed) return 0 ;; *) return 1 ;; esac; }

# /run is empty after a restart, also where containers share one boot id.
same_boot() { [ -e "$RUN/armed-$r_txn" ] && [ "$r_boot_id" = "$(boot_id)" ]; }

# Uptime at which the loaded transaction is given up, empty when only the lock decides.
deadline() {
  case $r_phase in
    armed | activating) echo $((r_started + r_activation_limit)) ;;
    booting) echo $((r_activated + BOOT_LIMIT)) ;; # the restart itself hangs
    activated)
      if read -r at 2>/dev/null <"$RUN/contact-$r_txn"; then
        echo $((at + r_check_limit))
      elif [ "$r_once" = yes ]; then
        echo $((r_activated + r_reboot_limit))
      else
        echo $((r_activated + r_confirm_limit))
      fi
      ;;
    checked) echo $((r_checked + r_hold_limit)) ;;
  esac
}

report() {
  say current "$(resolve "$CURRENT")"
  say profile "$(resolve "$PROFILE")"
  say booted "$(resolve "$BOOTED")"
  say default "$(boot_default)"
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
