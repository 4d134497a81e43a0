#!/usr/bin/env bash
# Lock what pra-agent needs, with hashes, for each Python that there are packages for: lock.sh [--upgrade]
# Only wheels are taken, so that nothing is compiled when a package is built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
UV=${UV:-uv}

grep -v '^#' packaging/targets.txt | awk '{print $2}' | sort -u | while read -r version; do
    "$UV" pip compile --quiet --all-extras --generate-hashes --only-binary :all: --python-version "$version" \
        --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
        --output-file "packaging/locks/python$version.txt" "$@" pyproject.toml
    echo "locked packaging/locks/python$version.txt"
done
