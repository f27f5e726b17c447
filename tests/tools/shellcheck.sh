#!/bin/sh
# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Check every shell script of the checkout: by name, or by its first line.
set -eu
cd "$(dirname "$0")/../.."
git ls-files -co --exclude-standard | while read -r file; do
    if [ ! -f "$file" ] || [ -L "$file" ]; then continue; fi
    case $file in
        *.sh) echo "$file" ;;
        *.*) ;;
        *) head -n 1 "$file" | grep -q '^#!/bin/sh' && echo "$file" ;;
    esac
done | xargs shellcheck --severity=style
