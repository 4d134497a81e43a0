#!/usr/bin/env bash
# Hosts with systemd as PID 1, as containers of the tests' own engine: the trees that tests/support/hosts.py imports.
# What makes no sense in a container is masked by tests/testbed/images/host*.
set -euo pipefail
# shellcheck source=tests/testbed/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"

need_root "hosts with systemd"
packages docker.io debootstrap iptables
exclusively docker

HOST=(systemd systemd-sysv dbus python3 python3-apt iproute2 iptables docker.io ca-certificates gpgv man-db procps)
image host12 bookworm "${HOST[@]}"
image host13 trixie "${HOST[@]}" || say "skipped: no Debian 13 from this mirror"
