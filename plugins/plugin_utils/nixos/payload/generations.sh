# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh disable=SC2034,SC2154 # parts of one program share their variables

# --- generations of the profile (nixos_generations) --------------------------------------------------------------------------

COLLECT_PATIENCE=30          # seconds that a collection waits for the lock
MENU_STALE=$STATE/menu-stale # there while the boot menu may name generations that are deleted

# [list | dead | difference OLD NEW]: reads only.
verb_generations() {
  case ${1-list} in
    list) list_generations ;;
    dead) say dead "$(nix-store --gc --print-dead 2>/dev/null </dev/null | grep -c /)" ;;
    difference) say_difference "$2" "$3" ;;
  esac
}

# The status, and one line "@entry=NUMBER SECONDS-SINCE-1970 PATH VERSION" per generation.
list_generations() {
  verb_status
  say clock "$(date +%s)"
  [ ! -e "$MENU_STALE" ] || say menu_stale yes
  for link in "$PROFILE"-*-link; do
    number=${link#"$PROFILE-"} number=${number%-link}
    case $number in '' | *[!0-9]*) continue ;; esac
    made=$(stat -c %Y "$link" 2>/dev/null) || continue # deleted in this moment
    version=''
    [ ! -r "$link/nixos-version" ] || read -r version <"$link/nixos-version" || :
    say entry "$number $made $(readlink -f "$link") $version"
  done
}

# By packages where Nix sees a difference there, else the lists of paths.
say_difference() {
  lines=$(nix --extra-experimental-features nix-command store diff-closures "$1" "$2" 2>/dev/null </dev/null)
  if [ -n "$lines" ]; then
    printf '%s\n' "$lines" | while IFS= read -r line; do say difference "$line"; done
  else
    nix-store --query --requisites "$1" 2>/dev/null | while IFS= read -r path; do say old_path "$path"; done
    nix-store --query --requisites "$2" 2>/dev/null | while IFS= read -r path; do say new_path "$path"; done
  fi
}

# OWNER GARBAGE NUMBER…: deletes these generations, makes the boot menu anew, then, with GARBAGE=yes, deletes what nothing needs. What is
# in use is looked at again here, under the lock: it may have changed since the controller chose.
verb_collect() {
  trap '' HUP PIPE
  owner=$1 garbage=$2
  shift 2
  mkdir -p "$RUN" "$STATE/log"
  if ! lock -w "$COLLECT_PATIENCE" || { load && ! terminal; }; then
    answer locked
  fi
  LOG=$STATE/log/collect.log
  true 2>/dev/null >"$LOG" || LOG=/dev/null # a full disk is a reason to collect
  if delete_generations "$@" && renew_menu; then
    unlock # from here on Nix's own lock and the roots of a transaction that begins protect what is in use
    [ "$garbage" != yes ] || collect_garbage
  fi
  unlock
  say result collected
  [ "$LOG" = /dev/null ] || tail -n 20 "$LOG" | while IFS= read -r line; do say collect_log "$line"; done
}

# Lock held. Numbers that are gone already are no mistake: another collection was faster.
delete_generations() {
  used=" $(resolve "$CURRENT") $(resolve "$BOOTED") $(resolve "$PROFILE") $(boot_default) "
  doomed=''
  for number; do
    link=$PROFILE-$number-link
    [ -L "$link" ] || continue
    case $used in *" $(readlink -f "$link") "*) say kept "$number" ;; *) doomed="$doomed $number" ;; esac
  done
  [ -n "$doomed" ] || return 0
  true 2>/dev/null >"$MENU_STALE" && flush "$MENU_STALE"
  # shellcheck disable=SC2086 # numbers
  set_profile "$PROFILE" --delete-generations $doomed
  code=$?
  deleted=''
  for number in $doomed; do
    [ -L "$PROFILE-$number-link" ] || { deleted="$deleted $number" && say deleted "$number"; }
  done
  (r_txn=- r_phase=collected && note "generations$deleted by $owner")
  [ "$code" = 0 ] || { say error "nix-env could not delete the generations$doomed (code $code)" && return 1; }
}

# Lock held. The system that is the boot default writes the menu, so the default stays what it is; one that is no generation would get
# no entry, then it is the profile's.
renew_menu() {
  [ -e "$MENU_STALE" ] || return 0
  default=$(boot_default)
  system=$(resolve "$PROFILE")
  for link in "$PROFILE"-*-link; do
    [ -z "$default" ] || [ "$(readlink -f "$link")" != "$default" ] || system=$default
  done
  install_loader "$system" && rm -f "$MENU_STALE" && return
  say error 'the boot menu could not be made anew; it may still name deleted generations, the boot default is unchanged'
  return 1
}

collect_garbage() {
  said=$({ nix-collect-garbage 2>&1 </dev/null || echo "failed with code $?"; } | tail -n 3)
  case $said in
    *'failed with code'*) say error "nix-collect-garbage: $(printf '%s' "$said" | tr '\n' ' ')" ;;
    *) say freed "$(printf '%s\n' "$said" | grep ' freed' | tail -n 1)" ;;
  esac
}
