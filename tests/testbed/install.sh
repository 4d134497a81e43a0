#!/usr/bin/env bash
# Install every server that the tests run, or only the parts named: install.sh [PART...]
# A part that cannot be had here says so and its tests are skipped; one that fails makes this fail, after all others.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ $# -gt 0 ]; then
    parts=("$@")
else
    parts=(packages)
    for script in "$HERE"/*.sh; do
        part=$(basename "$script" .sh)
        case $part in common | install | packages) ;; *) parts+=("$part") ;; esac
    done
fi

failed=()
for part in "${parts[@]}"; do
    bash "$HERE/$part.sh" || failed+=("$part")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "install: failed: ${failed[*]}"
    exit 1
fi
