# shellcheck shell=bash
# Sourced by the parts of the test bed. Everything they install lies under $TESTBED, outside the checkout: a second run,
# and another checkout, find it there. Every user must be able to traverse it, since some servers refuse root and run as
# a user of their own.
set -euo pipefail
: "${TESTBED:=/var/tmp/pra-testbed}"
export TESTBED
mkdir -p "$TESTBED/bin" "$TESTBED/stamps"
[ ! -O "$TESTBED" ] || chmod a+rx "$TESTBED"

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*"; }

# What cannot be done here is said, and is no failure: its tests are skipped.
skip() {
    say "skipped: $*"
    exit 0
}

need_root() { [ "$(id -u)" -eq 0 ] || skip "$1 needs root"; }

# One process at a time: two checkouts may share the test bed.
exclusively() {
    [ -w "$TESTBED/stamps" ] || skip "$TESTBED belongs to another user"
    exec 9>"$TESTBED/stamps/$1.lock"
    flock 9
}

# go_tool MODULE VERSION NAME: build a command from the Go module proxy into $TESTBED/bin/NAME, once for each version.
go_tool() {
    local module=$1 version=$2 name=$3 built
    local stamp=$TESTBED/stamps/$name-$version
    if [ -x "$TESTBED/bin/$name" ] && [ -e "$stamp" ]; then
        say "$version is there"
        return
    fi
    command -v go >/dev/null || skip "no Go toolchain to build $name"
    exclusively go
    say "building $version"
    built=$(mktemp -d "$TESTBED/build.XXXXXX")
    GOPATH=$TESTBED/go GOCACHE=$TESTBED/gocache GOBIN=$built CGO_ENABLED=0 GOFLAGS='-buildvcs=false -modcacherw' \
        nice -n 15 go install "$module@$version" >"$TESTBED/$name.log" 2>&1 || {
        tail -n 20 "$TESTBED/$name.log"
        return 1
    }
    mv "$built/$(basename "$module")" "$TESTBED/bin/$name"
    rmdir "$built"
    touch "$stamp"
}

# packages NAME...: Debian packages, without starting any of the services that they bring.
packages() {
    local missing=() name policy=/usr/sbin/policy-rc.d
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$name" 2>/dev/null | grep -q '^ii' || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || skip "no apt here to install ${missing[*]}"
    need_root "installing ${missing[*]}"
    exclusively apt
    say "installing ${missing[*]}"
    if [ ! -e "$policy" ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=600)
    "${apt[@]}" update || say "the package lists could not be renewed; trying with those that are here"
    "${apt[@]}" install --no-install-recommends "${missing[@]}" >"$TESTBED/apt.log" 2>&1 || {
        tail -n 20 "$TESTBED/apt.log"
        return 1
    }
}

# ---------------------------------------------------------------- trees that images are imported from
PARTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
IMAGES=$TESTBED/docker/images

# shellcheck disable=SC2016 # apt expands it
mirror() { apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -v security | head -n 1; }

# The suite's packages come from where this host's own do.
sources() { printf 'deb %s %s main\n' "$(mirror)" "$1"; }

# rootfs NAME SUITE [PACKAGES]: a minimal tree, then packages from this host's own mirrors without starting any service
rootfs() {
    local name=$1 suite=$2 root
    shift 2
    mkdir -p "$IMAGES"
    root=$(mktemp -d "$TESTBED/rootfs.XXXXXX")
    debootstrap --variant=minbase "$suite" "$root" "$(mirror)" >"$root.log" 2>&1 || { tail -n 5 "$root.log"; return 1; }
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    sources "$suite" >"$root/etc/apt/sources.list"
    [ -d /etc/apt/apt.conf.d ] && cp -a /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
    if [ $# -gt 0 ]; then
        chroot "$root" apt-get update -qq >>"$root.log" 2>&1
        DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y -qq --no-install-recommends "$@" \
            >>"$root.log" 2>&1 || { tail -n 5 "$root.log"; return 1; }
    fi
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root/usr/sbin/policy-rc.d"
    [ -d "$PARTS/images/$name" ] && cp -a "$PARTS/images/$name/." "$root/"
    tar -C "$root" -c . >"$IMAGES/$name.tar.part"
    mv "$IMAGES/$name.tar.part" "$IMAGES/$name.tar"
    rm -rf "$root" "$root.log"
}

# image NAME SUITE [PACKAGES]: once, and again when what it is made of has changed
image() {
    local name=$1 made
    made=$(printf '%s\n' "$@"; find "$PARTS/images/$name" -type f -exec sha256sum {} + 2>/dev/null || true)
    if [ ! -f "$IMAGES/$name.tar" ] || [ "$(cat "$IMAGES/$name.made" 2>/dev/null)" != "$made" ]; then
        rootfs "$@" || return 1
        printf '%s\n' "$made" >"$IMAGES/$name.made"
    fi
}
