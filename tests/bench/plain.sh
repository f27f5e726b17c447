#!/bin/sh
# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# ADDRESS SYSTEM: what `nixos-rebuild switch --target-host` does after the build, over one shared connection.
set -eu
address=$1
system=$2
sockets=$(mktemp -d /run/bench-XXXXXX)
options="-i $ANSIBLE_PRIVATE_KEY_FILE $ANSIBLE_SSH_COMMON_ARGS -o ControlMaster=auto -o ControlPersist=60 -o ControlPath=$sockets/%n"
# shellcheck disable=SC2029,SC2086 # words for ssh and for the host's shell
remote() { ssh $options "root@$address" "$@" < /dev/null; }
trap 'ssh -o "ControlPath=$sockets/%n" -O exit "$address" 2> /dev/null; rm -rf "$sockets"' EXIT

NIX_SSHOPTS=$options nix-copy-closure --to "root@$address" "$system"
remote nix-env -p /nix/var/nix/profiles/system --set "$system"
remote "$system/bin/switch-to-configuration" switch
