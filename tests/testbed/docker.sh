#!/usr/bin/env bash
# Docker engine from Debian's packages, and the file trees that the tests' images are imported from:
# no registry is at hand, so images are made of packages.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/testbed/common.sh
. "$HERE/common.sh"

IMAGES=$TESTBED/docker/images
need_root "a Docker engine"
packages docker.io debootstrap iptables
exclusively docker
mkdir -p "$IMAGES"

# shellcheck disable=SC2016 # apt expands it
mirror() { apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -v security | head -n 1; }

# rootfs NAME SUITE [PACKAGES]: a minimal tree, then packages from this host's own mirrors without starting any service
rootfs() {
    local name=$1 suite=$2 root
    shift 2
    root=$(mktemp -d "$TESTBED/rootfs.XXXXXX")
    debootstrap --variant=minbase "$suite" "$root" "$(mirror)" >"$root.log" 2>&1 || { tail -n 5 "$root.log"; return 1; }
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    cp -a /etc/apt/sources.list* "$root/etc/apt/" 2>/dev/null || true
    [ -d /etc/apt/apt.conf.d ] && cp -a /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
    if [ $# -gt 0 ]; then
        chroot "$root" apt-get update -qq >>"$root.log" 2>&1
        DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y -qq --no-install-recommends "$@" \
            >>"$root.log" 2>&1 || { tail -n 5 "$root.log"; return 1; }
    fi
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root/usr/sbin/policy-rc.d"
    [ -d "$HERE/images/$name" ] && cp -a "$HERE/images/$name/." "$root/"
    tar -C "$root" -c . >"$IMAGES/$name.tar.part"
    mv "$IMAGES/$name.tar.part" "$IMAGES/$name.tar"
    rm -rf "$root" "$root.log"
}

# image NAME SUITE [PACKAGES]: once, and again when what it is made of has changed
image() {
    local name=$1 made
    made=$(printf '%s\n' "$@"; find "$HERE/images/$name" -type f -exec sha256sum {} + 2>/dev/null || true)
    if [ ! -f "$IMAGES/$name.tar" ] || [ "$(cat "$IMAGES/$name.made" 2>/dev/null)" != "$made" ]; then
        rootfs "$@"
        printf '%s\n' "$made" >"$IMAGES/$name.made"
    fi
}

image base bookworm python3-minimal procps
image mariadb bookworm mariadb-server
