#!/usr/bin/env bash
# Docker engine from Debian's packages, and the file trees of the images that databases and volumes are tested
# with: no registry is at hand, so images are made of packages.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/testbed/common.sh
. "$HERE/common.sh"

need_root "a Docker engine"
packages docker.io docker-compose debootstrap iptables
exclusively docker

image base bookworm python3-minimal procps
image mariadb bookworm mariadb-server
