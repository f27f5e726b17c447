#!/bin/sh
# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The machine's side of secret_files. It comes on standard input and is followed by calls of these functions, contents included:
# printf is a builtin of every POSIX shell in use, so no content is ever an argument of a process.

set -u
umask 077
export LC_ALL=C

fail() {
  printf '@error=%s\n' "$1"
  exit 0
}

flush() { sync "$1" 2>/dev/null || sync; }

# NONCE PATH: digest of nonce and content (so that a log cannot be searched for guessed contents), owner, group, mode.
look() {
  if [ -L "$2" ] || { [ -e "$2" ] && [ ! -f "$2" ]; }; then
    printf '@other=%s\n' "$2"
  elif [ -e "$2" ]; then
    digest=$({ printf '%s' "$1" && cat "$2"; } | sha256sum) || fail "cannot read $2"
    printf '@file=%s %s %s\n' "${digest%% *}" "$(stat -c '%U %G %u %g %a' "$2")" "$2"
  fi
}

# DIRECTORY: every file below it.
present() {
  [ ! -d "$1" ] || find "$1" -mindepth 1 \( -type f -o -type l \) -exec printf '@present=%s\n' {} \;
}

# PATH OWNER GROUP MODE BASE64: complete and on the disk under a hidden name first, then renamed.
put() {
  directory=${1%/*}
  name=${1##*/}
  mkdir -p "$directory" || fail "cannot make the directory $directory"
  [ ! -d "$1" ] || [ -L "$1" ] || fail "$1 is a directory"
  rm -f "$directory/.$name".*.new
  temporary=$directory/.$name.$$.new
  if printf '%s' "$5" | base64 -d >"$temporary" && chown "$2:$3" "$temporary" && chmod "$4" "$temporary" &&
    flush "$temporary" && mv -fT "$temporary" "$1" && flush "$directory"; then
    printf '@done=%s\n' "$1"
  else
    rm -f "$temporary"
    fail "cannot write $1 (owner $2:$3, mode $4)"
  fi
}

# DIRECTORY PATH: remove a file below the directory, and the directories that this leaves empty.
discard() {
  rm -f "$2" || fail "cannot remove $2"
  find "$1" -mindepth 1 -depth -type d -empty -delete
  printf '@done=%s\n' "$2"
}
