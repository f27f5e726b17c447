# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Builder of pkgs.tree: $out from the entries in $indexPath, each in its own $<variable>Path.
# shellcheck shell=sh disable=SC2154
mkdir -p "$out"
while read -r variable kind target; do
    eval "file=\$${variable}Path"
    case $target in */*) mkdir -p "$out/${target%/*}" ;; esac
    case $kind in
        text) cp "$file" "$out/$target" ;;
        link) ln -s "$(cat "$file")" "$out/$target" ;;
        source) cp -r "$(cat "$file")" "$out/$target" ;;
    esac
done < "$indexPath"
