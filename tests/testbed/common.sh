# shellcheck shell=bash
# Sourced by the parts of the test bed. Everything they install lies under $TESTBED, outside the checkout: a second run, and another
# checkout, find it there. Every user must be able to traverse it, since some servers refuse root and run as a user of their own.
set -euo pipefail
: "${TESTBED:=/var/tmp/pra-testbed}"
export TESTBED
mkdir -p "$TESTBED/bin" "$TESTBED/stamps"
chmod a+rx "$TESTBED"

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*"; }

# Without root a part says what it cannot do, and that is no failure: its tests are skipped.
need_root() {
  if [ "$(id -u)" -ne 0 ]; then
    say "skipped: $1 needs root"
    exit 0
  fi
}

# One process at a time: two checkouts may share the test bed.
exclusively() {
  exec 9>"$TESTBED/stamps/$1.lock"
  flock 9
}

# go_tool MODULE VERSION NAME: build a command from the Go module proxy into $TESTBED/bin/NAME, once for each version.
go_tool() {
  local module=$1 version=$2 name=$3 built
  local stamp=$TESTBED/stamps/$name-$version
  if [ -x "$TESTBED/bin/$name" ] && [ -e "$stamp" ]; then
    say "$name $version is there"
    return
  fi
  if ! command -v go >/dev/null; then
    say "skipped: no Go toolchain to build $name"
    exit 0
  fi
  exclusively go
  say "building $name $version"
  built=$(mktemp -d "$TESTBED/build.XXXXXX")
  GOPATH=$TESTBED/go GOCACHE=$TESTBED/gocache GOBIN=$built CGO_ENABLED=0 GOFLAGS='-buildvcs=false -modcacherw' \
    nice -n 15 go install "$module@$version"
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
  exclusively apt
  say "installing ${missing[*]}"
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && trap 'rm -f /usr/sbin/policy-rc.d' EXIT; }
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
