#!/bin/sh
# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Usage: unshare --mount … sh chroot.sh ROOT STORE COMMAND
# Runs COMMAND in a root of its own over this machine's /usr: /etc, /run, /boot, /nix and /var are empty and private, and
# systemctl is a program that knows units by the file /run/states ("unit ActiveState") and starts nothing.
set -eu
root=$1
store=$2
mount -t tmpfs tmpfs "$root"
for name in bin sbin lib lib64; do
    [ ! -L "/$name" ] || cp -a "/$name" "$root/$name"
done
mkdir -p "$root/usr/sbin" "$root/etc" "$root/run" "$root/boot" "$root/nix/store" "$root/nix/var/nix/profiles" \
    "$root/dev" "$root/tmp" "$root$store"
for directory in /usr/bin /usr/lib /usr/lib64 /usr/share /etc/alternatives; do
    [ ! -d "$directory" ] || { mkdir -p "$root$directory" && mount --rbind "$directory" "$root$directory"; }
done
mount --rbind /dev "$root/dev"
mount --bind "$store" "$root$store"
cat > "$root/usr/sbin/systemctl" <<'SYSTEMCTL'
#!/bin/sh
[ "$1" = show ] || exit 0
for unit do
    case $unit in
        -*|show) ;;
        *) printf 'Id=%s\nActiveState=%s\nSubState=x\nExecMainStatus=0\n\n' "$unit" \
            "$(sed -n "s/^$unit //p" /run/states 2> /dev/null | grep . || echo inactive)" ;;
    esac
done
SYSTEMCTL
chmod 0755 "$root/usr/sbin/systemctl"
exec chroot "$root" /bin/sh -c "$3"
