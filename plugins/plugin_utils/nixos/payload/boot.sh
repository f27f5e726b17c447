# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh disable=SC2034,SC2154 # parts of one program share their variables

# --- profile and boot loader -------------------------------------------------------------------------------------------------

ESP="$ROOT/boot $ROOT/efi $ROOT/boot/efi" # where systemd-boot may have its files

boot_loader() {
  for esp in $ESP; do
    if [ -r "$esp/loader/loader.conf" ]; then echo systemd-boot && return; fi
  done
  if grep -q next_entry "$ROOT/boot/grub/grub.cfg" 2>/dev/null; then echo grub; fi
}

# Number of the profile's current generation, empty when there is none.
generation() {
  link=$(readlink "$PROFILE" 2>/dev/null) || return 0
  link=${link##*/}
  case $link in system-*-link) link=${link#system-} && echo "${link%-link}" ;; esac
}

# Store path of the system that the boot loader starts when nobody chooses, empty when that cannot be told. systemd-boot: the entry
# that loader.conf prefers or names, with or without the counter of a boot that is being tried; a pattern names none. GRUB: the
# first entry of its menu.
boot_default() {
  for esp in $ESP; do
    conf=$esp/loader/loader.conf
    [ -r "$conf" ] || continue
    entry=$(sed -n 's/^preferred[[:space:]]\{1,\}\([A-Za-z0-9._+-]*\)$/\1/p' "$conf" | tail -n 1)
    [ -n "$entry" ] || entry=$(sed -n 's/^default[[:space:]]\{1,\}\([A-Za-z0-9._+-]*\)$/\1/p' "$conf" | tail -n 1)
    [ -n "$entry" ] || return 0
    for file in "$esp/loader/entries/$entry" "$ROOT/boot/loader/entries/$entry" "$esp/loader/entries/${entry%.conf}"+*.conf; do
      [ -r "$file" ] && init_of "$file" && return
    done
    return 0
  done
  [ ! -r "$ROOT/boot/grub/grub.cfg" ] || init_of "$ROOT/boot/grub/grub.cfg"
}

init_of() { sed -n 's/^.*[[:space:]]init=\([^[:space:]]*\)\/init\([[:space:]].*\)\{0,1\}$/\1/p' "$1" | head -n 1 | grep .; }

# SYSTEM: name by which systemd-boot knows an entry that starts it; the names have changed between releases of NixOS.
entry_of() {
  for esp in $ESP; do
    for file in "$esp"/loader/entries/*.conf; do
      if [ -r "$file" ] && [ "$(init_of "$file")" = "$1" ]; then
        echo "${file##*/}" | sed 's/+[0-9-]*\.conf$/.conf/'
        return
      fi
    done
  done
  return 1
}

set_profile() { (umask 022 && exec timeout 60 nix-env -p "$@" >>"$LOG" 2>&1 </dev/null 8>&-); }

# Undo what this transaction did to the profile, by number; never "the one before" and never somebody else's generation.
restore_profile() {
  [ "$(resolve "$PROFILE")" = "$r_system_new" ] || return 0
  made=$(generation)
  [ "$made" != "$r_generation_old" ] || return 0
  if [ -n "$r_generation_old" ]; then
    set_profile "$PROFILE" --switch-generation "$r_generation_old" || return 1
  elif [ -n "$r_profile_old" ]; then
    set_profile "$PROFILE" --set "$r_profile_old" || return 1
  else
    rm -f "$PROFILE" "$PROFILE-$made-link"
    return
  fi
  [ -z "$made" ] || [ -n "$r_number" ] || set_profile "$PROFILE" --delete-generations "$made" || :
}

undo_commit() {
  restore_profile || return 1
  wanted_default=${r_profile_old:-$r_system_old}
  [ "$(boot_default)" = "$wanted_default" ] || install_loader "$wanted_default" # a full /boot may refuse what is not needed
}

# SYSTEM becomes the boot default, and that is looked at: installers have been seen to succeed without doing it.
install_loader() {
  for esp in $ESP; do
    rm -f "$esp/loader/loader.tmp" # systemd-boot's installer refuses to run after a crash that left it
  done
  stc "$1" boot "$BOOT_LIMIT" || return 1
  default=$(boot_default)
  [ -z "$default" ] || [ "$default" = "$1" ] || {
    echo "the boot default is $default, not $1" >>"$LOG"
    return 1
  }
}

# Lock held, phase activated or checked (or a `boot` action). Profile first, loader second: a crash between them boots the old system.
commit() {
  enter committing 'setting the profile and the boot default' || return 1
  if [ -n "$r_number" ]; then
    set_profile "$PROFILE" --switch-generation "$r_number" || return 1
    [ "$(resolve "$PROFILE")" = "$r_system_new" ] || return 1
  else
    set_profile "$PROFILE" --set "$r_system_new" || return 1
  fi
  drop_candidate # before the loader's run, which then forgets its entry too
  install_loader "$r_system_new" || return 1
  r_generation_new=$(generation)
  finish committed "$r_system_new"
}

# --- a restart into the new system, once -------------------------------------------------------------------------------------

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

# What the user asked for and the two systems decide whether the new one is booted instead of activated.
wants_restart() {
  case $r_reboot in
    always) return 0 ;;
    if_needed)
      [ "$r_action" = boot ] || needs_reboot "$r_system_new" ||
        ! cmp -s "$r_system_new/init-interface-version" "$CURRENT/init-interface-version"
      ;;
    *) return 1 ;;
  esac
}

# Prints why this machine cannot start a system once and then return to its boot default; nothing when it can.
once_impossible() {
  if [ ! -e "$r_system_new/$BOOT_UNIT" ]; then
    echo 'the new system has no unit fediversity-guard-boot, so nothing would watch it; import nix/modules/guard.nix'
  elif [ -z "$r_profile_old" ]; then
    echo 'the machine has no system profile to return to'
  elif fs=$(findmnt -no FSTYPE -T "$STATE" 2>/dev/null) && { [ "$fs" = tmpfs ] || [ "$fs" = ramfs ]; }; then
    echo "$STATE does not outlive a restart"
  else
    case $(boot_loader) in
      systemd-boot) command -v bootctl >/dev/null || echo 'systemd-boot without bootctl' ;;
      grub)
        # GRUB must be able to forget the entry when it has started it: it writes plain file systems on plain disks only
        case $(findmnt -no FSTYPE,SOURCE -T "$ROOT/boot/grub" 2>/dev/null) in
          *" /dev/mapper/"* | *" /dev/dm-"* | *" /dev/md"*) echo 'GRUB cannot write to LVM, RAID or encrypted disks' ;;
          ext* | vfat* | xfs*) command -v grub-editenv >/dev/null || echo 'GRUB without grub-editenv' ;;
          *) echo 'GRUB cannot write to the file system of /boot' ;;
        esac
        ;;
      *) echo 'its boot loader is neither systemd-boot nor a GRUB with one-time entries' ;;
    esac
  fi
}

# The candidate gets a menu entry, the boot default stays, and the next start takes the candidate.
stage_candidate() {
  (umask 022 && mkdir -p "${CANDIDATE%/*}") && set_profile "$CANDIDATE" --set "$r_system_new" && install_loader "$r_profile_old" || return 1
  case $(boot_loader) in
    systemd-boot) entry=$(entry_of "$r_system_new") || return 1 ;;
    *) entry='' ;;
  esac
  start_once "$entry" "next_entry=NixOS - Profile 'candidate'>0"
}

# ENTRY GRUB-VARIABLE: systemd-boot's entry (none when empty), or the assignment for GRUB.
start_once() {
  case $(boot_loader) in
    systemd-boot) bootctl set-oneshot "$1" ;;
    grub) grub-editenv "$ROOT/boot/grub/grubenv" set "$2" ;;
  esac >>"$LOG" 2>&1 8>&-
}

drop_candidate() { rm -f "$CANDIDATE" "$CANDIDATE"-*-link; }

# Before the candidate has run: nothing starts it any more.
unstage_candidate() {
  [ "$r_once" = yes ] || return 0
  start_once '' next_entry= || : # an entry that is gone cannot be started either
  drop_candidate
  install_loader "$r_profile_old"
}

restart_into_candidate() {
  if ! stage_candidate; then
    lock
    load && [ "$r_phase" = activating ] && begin_rollback 'the new system could not be given to the boot loader'
    unlock
    return
  fi
  lock
  load && [ "$r_phase" = activating ] || exit 0
  now
  r_activated=$NOW
  enter booting "restarting into $r_system_new, once" || {
    begin_rollback "cannot write $RECORD"
    return
  }
  unlock
  sync
  systemctl reboot --check-inhibitors=no 8>&-
}

# Lock held: the machine has started anew while a transaction was live. The candidate is watched from now on; anything else is closed.
after_restart() {
  if [ "$r_once" = yes ] && { [ "$r_phase" = booting ] || [ "$r_phase" = activating ]; } &&
    [ "$(resolve "$CURRENT")" = "$r_system_new" ] && [ "$(resolve "$BOOTED")" = "$r_system_new" ]; then
    take_over # `activating`: the power was cut when the loader had the candidate, but not yet the record
  else
    settle
  fi
}

take_over() {
  now
  start_once '' next_entry= || : # GRUB may not have been able to forget it
  r_boot_id=$(boot_id) r_started=$NOW r_activated=$NOW r_rc=0
  : >"$RUN/armed-$r_txn"
  if ! enter activated 'the machine has started with the new system, once' || ! arm; then restart_machine; fi
}

# Lock held: close a transaction that the machine's restart interrupted.
settle() {
  if [ "$r_stage" = committing ] && [ "$(resolve "$CURRENT")" = "$r_system_new" ] && commit; then
    return # it had passed its checks, and it is what the boot loader chose
  fi
  [ "$r_phase" != booting ] || r_reason="the machine did not start with $r_system_new"
  r_reason=${r_reason:-the machine restarted before the new system was committed}
  r_method=reboot
  if { [ "$r_stage" = committing ] && ! undo_commit; } || ! unstage_candidate; then
    r_reason="$r_reason; the profile or the boot default could not be put back"
    finish failed "$r_reason"
  elif [ "$(resolve "$CURRENT")" != "$r_system_new" ] || [ "$r_system_new" = "$r_system_old" ] || [ "$r_system_new" = "$r_profile_old" ]; then
    finish rolled-back "$r_reason"
  elif [ "$r_left" = yes ]; then # a loader that does not obey must not make a circle of it
    r_reason="$r_reason; the machine starts with the new system although it was given up"
    finish failed "$r_reason"
  else
    r_left=yes
    restart_machine # the loader has the old system again
  fi
}

verb_booted() {
  load && ! terminal && ! same_boot || return 0 # a live transaction may hold the lock and wait for this very unit
  lock && load && ! terminal && ! same_boot && after_restart
  unlock
}
