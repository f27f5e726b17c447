# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh disable=SC2034,SC2154 # parts of one program share their variables

# --- health checks -----------------------------------------------------------------------------------------------------------

# Failed units that the user's policy does not accept. Arguments: those before and those now.
unacceptable() {
  case $r_policy in
    any) echo "$2" ;;
    watched) common "$r_watch" "$2" ;;
    ignore) ;;
    *) printf '%s' "$(common "$r_watch" "$2")" && added "$1 $r_watch" "$2" ;;
  esac
}

restarts() {
  total=0
  for check; do
    case $check in unit=*) n=$(systemctl show -p NRestarts --value -- "${check#*=}" 2>/dev/null) && total=$((total + ${n:-0})) ;; esac
  done
  echo "$total"
}

# UPTIME COMMAND…: repeat until it succeeds or the uptime is reached.
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

# ADDRESS PORT; bash opens connections, POSIX shells do not
# shellcheck disable=SC2016 # the words of the inner shell
tcp_open() { timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null </dev/null; }

command_succeeds() { timeout -k 2 30 "$SHELL_PATH" -c "$1" >>"$LOG" 2>&1 </dev/null; }

# stable=SECONDS patience=SECONDS unit=NAME command=TEXT http="STATUS URL" tcp="ADDRESS PORT": prints the first problem, nothing
# when all is well.
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
      unit=*) patiently "$limit" systemctl --quiet is-active -- "$value" || { echo "unit $value is not active" && return; } ;;
      command=*) patiently "$limit" command_succeeds "$value" || { echo "health command failed: $value" && return; } ;;
      http=*)
        command -v curl >/dev/null || { echo 'HTTP health check: the machine has no curl' && return; }
        # shellcheck disable=SC2086 # two words: status and address
        patiently "$limit" http_status $value || { echo "HTTP health check: ${value#* } answered ${got:-nothing}, not ${value%% *}" && return; }
        ;;
      tcp=*)
        command -v bash >/dev/null || { echo 'TCP health check: the machine has no bash' && return; }
        # shellcheck disable=SC2086 # two words: address and port
        patiently "$limit" tcp_open $value || { echo "TCP health check: no connection to ${value% *} port ${value#* }" && return; }
        ;;
    esac
  done
  before=$(restarts "$@")
  now
  limit=$((NOW + stable))
  while [ "$NOW" -lt "$limit" ]; do
    for check; do
      case $check in unit=*) systemctl --quiet is-active -- "${check#*=}" || { echo "unit ${check#*=} did not stay active" && return; } ;; esac
    done
    nap
    now
  done
  [ "$(restarts "$@")" = "$before" ] || { echo 'a watched unit keeps restarting' && return; }
  failed=$(unacceptable "$r_failed_before" "$(failed_units)")
  [ -z "$failed" ] || echo "failed units: $failed"
}
