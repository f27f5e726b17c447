# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# What activation, switch and boot share; sourced with $system set to the store path of the system.
# shellcheck shell=sh disable=SC2154,SC2034

# NixOS has its programs here too; the systems of the lab link sw/bin to the host's own
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

profiles=/nix/var/nix/profiles
units=$system/etc/systemd/system
# as on NixOS, units of a system are gone after a reboot until the system that boots brings its own
deployed=/run/systemd/system
boot=/boot/loader

say() { printf '%s\n' "$*"; }
complain() { printf '%s\n' "$*" >&2; }

# replace DESTINATION by a symbolic link to TARGET in one step
link_to() {
    ln -sfn "$1" "$2.new-$$" && mv -T "$2.new-$$" "$2"
}

# replace DESTINATION by standard input in one step
write_to() {
    cat > "$1.new-$$" && mv -T "$1.new-$$" "$1"
}

# paths of the deployed units and dependency links; only links into the store are ours, a file of systemd-run never is
deployed_links() {
    [ ! -d "$deployed" ] || find "$deployed" -maxdepth "$1" -type l -lname '/nix/store/*'
}

# make /run/systemd/system hold exactly the units and dependency links of the system
deploy_units() {
    mkdir -p "$deployed"
    for file in "$units"/*.wants "$units"/*.requires; do
        [ -d "$file" ] || continue
        mkdir -p "$deployed/${file##*/}"
        ln -sfnt "$deployed/${file##*/}" "$file"/*
    done
    for file in "$units"/*.service "$units"/*.target; do
        [ ! -e "$file" ] || say "$file"
    done | xargs -r ln -sfnt "$deployed"
    deployed_links 2 | while read -r link; do
        [ -e "$units${link#"$deployed"}" ] || rm -f "$link"
    done
}

# names of the units that something of the system wants
wanted_units() {
    for link in "$units"/*.wants/*; do
        [ ! -L "$link" ] || say "${link##*/}"
    done | sort -u
}

# those of the units named on standard input whose state (ActiveState, or "crashing" for an automatic restart after a
# failure) matches the pattern; one call for all, and names that systemd does not know are inactive
units_in_state() {
    xargs -r systemctl show --property=Id,ActiveState,SubState,ExecMainStatus -- | awk -v pattern="^($1)\$" '
        function finish() {
            if (sub_state == "auto-restart" && status != "0") state = "crashing"
            if (unit != "" && state ~ pattern) print unit
            unit = state = sub_state = status = ""
        }
        /^Id=/ { unit = substr($0, 4) }
        /^ActiveState=/ { state = substr($0, 13) }
        /^SubState=/ { sub_state = substr($0, 10) }
        /^ExecMainStatus=/ { status = substr($0, 16) }
        /^$/ { finish() }
        END { finish() }'
}
