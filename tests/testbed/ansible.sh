#!/usr/bin/env bash
# ansible-core and ansible-lint in an environment of their own. Of the 590 MB of collections in the ansible package, only
# the connection to containers is unpacked: the playbooks themselves use nothing but ansible.builtin.
set -euo pipefail
# shellcheck source=tests/testbed/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"

WANTED=('ansible-core>=2.18,<2.19' 'ansible-lint>=25,<26' 'ansible==11.13.0')
ANSIBLE=$TESTBED/ansible
exclusively ansible
if [ "$(cat "$ANSIBLE/made" 2>/dev/null)" = "${WANTED[*]}" ]; then
    say "is there"
    exit
fi
say "installing ${WANTED[*]}"
rm -rf "$ANSIBLE"
mkdir -p "$ANSIBLE"
quietly() { "$@" >"$TESTBED/ansible.log" 2>&1 || { tail -n 5 "$TESTBED/ansible.log"; return 1; }; }
quietly python3 -m venv "$ANSIBLE/venv"
pip=("$ANSIBLE/venv/bin/python" -m pip --disable-pip-version-check --no-input)
quietly "${pip[@]}" install "${WANTED[@]:0:2}"
quietly "${pip[@]}" download --no-deps --only-binary :all: --dest "$ANSIBLE/wheel" "${WANTED[2]}"
mkdir "$ANSIBLE/collections"
quietly "$ANSIBLE/venv/bin/python" - "$ANSIBLE"/wheel/*.whl "$ANSIBLE/collections" <<'PYTHON'
import sys
import zipfile

NAMES = tuple(f"ansible_collections/community/{name}/" for name in ("docker", "library_inventory_filtering_v1"))
with zipfile.ZipFile(sys.argv[1]) as wheel:
    wheel.extractall(sys.argv[2], [name for name in wheel.namelist() if name.startswith(NAMES)])
PYTHON
rm -rf "$ANSIBLE/wheel"
printf '%s\n' "${WANTED[*]}" >"$ANSIBLE/made"
