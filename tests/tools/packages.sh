#!/bin/sh
# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Install the Debian packages of bindep.txt that are missing; with the argument "test" also those of that profile.
set -eu
cd "$(dirname "$0")/../.."

missing=$(
    grep -v '^#' bindep.txt | while read -r package selector; do
        case $package,$selector,${1-} in
            ,*) continue ;;
            *test*,) continue ;;
        esac
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf ' %s' "$package"
    done
)
[ -n "$missing" ] || exit 0

echo "Installing Debian packages:$missing"
if ! command -v apt-get >/dev/null; then
    echo "error: apt-get is not here. Install what these Debian packages hold:$missing" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    echo "error: no permission to install packages. Run as root: apt-get install$missing" >&2
    exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086  # the words of both variables are meant
if ! { $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "error: apt-get could not install:$missing" >&2
    exit 1
fi
