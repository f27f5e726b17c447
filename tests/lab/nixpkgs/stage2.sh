#!/bin/sh
# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Firmware, boot loader and stage 2 of a lab host, run by lab-stage2.service at every boot: picks the system that the
# boot loader would start and boots it. A new host, like a NixOS image, gets a first system without any configuration.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
scripts=${0%/*}/system
profile=/nix/var/nix/profiles/system
loader=/boot/loader
oneshot=/etc/lab/efi/LoaderEntryOneShot

# what the host was given by its "cloud-init"; systems without a network of their own go back to it
mkdir -p /run/lab
{
    ip -o -4 address show scope global | sed 's/^[0-9]*: *\([^ ]*\) *inet \([^ ]*\) .*/address \1 \2/'
    ip -4 route show default | sed -n 's/^default via \([^ ]*\) .*/gateway \1/p'
} > /run/lab/network

if [ ! -e "$profile" ]; then
    first=$(mktemp -d /run/lab/XXXXXX)/first-system
    mkdir -p "$first/bin" "$first/sw" "$first/etc" "$loader" "${profile%/*}"
    install -m 0555 "$scripts/switch-to-configuration" "$first/bin/"
    install -m 0555 "$scripts/activate" "$scripts/init" "$first/"
    install -m 0444 "$scripts/functions.sh" "$first/"
    ln -s /usr/bin "$first/sw/bin"
    ln -s /proc/version "$first/kernel"
    : > "$first/etc-modes"
    printf lab-init-1 > "$first/init-interface-version"
    printf lab > "$first/nixos-version"
    path=$(nix-store --add "$first")
    nix-env --profile "$profile" --set "$path"
    "$path/bin/switch-to-configuration" boot
    rm -rf "${first%/*}"
fi

# the entry that `bootctl set-oneshot` asked for, once; else the default; else what was installed last
entry=$(cat "$oneshot" 2> /dev/null) || entry=
if [ -n "$entry" ]; then
    rm -f "$oneshot"
    sync -f "${oneshot%/*}"
    entry=${entry%.conf}.conf
fi
[ -f "$loader/entries/$entry" ] || entry=$(sed -n 's/^default //p' "$loader/loader.conf" 2> /dev/null) || entry=
system=$(sed -n 's|^options init=\([^ ]*\)/init\( .*\)\{0,1\}$|\1|p' "$loader/entries/$entry" 2> /dev/null) || system=
[ -x "$system/init" ] || system=$(readlink -f "$profile")
exec "$system/init"
