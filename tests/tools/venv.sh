#!/bin/sh
# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Make the virtual environment $1 and install the requirements file $2 into it.
set -eu
cd "$(dirname "$0")/../.."
venv=$1
requirements=$2

# a real interpreter rather than a shim of a version manager, which may be inactive
for python in /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11 /usr/bin/python3 python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        break
    fi
done
if [ ! -x "$venv/bin/python" ]; then
    echo "Making the virtual environment $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi
echo "Installing Python packages of $requirements"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
