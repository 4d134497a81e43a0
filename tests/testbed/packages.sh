#!/bin/bash
# The Debian packages of the test bed: stock restic and the tools of hard cases, and the servers that apt has.
# Installs only what is missing, so that a second run costs a fraction of a second. No server is started by its installation.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

packages=(
  python3-venv                              # the project's own environment
  restic                                    # the oracle of the format
  acl attr e2fsprogs fuse3                  # attributes, loop-mounted and faulty file systems
  golang-go                                 # builds versitygw and toxiproxy, where no newer Go is on the PATH
  radosgw ceph-mon ceph-osd ceph-common     # S3 with users, policies, object lock, KMS
)

have() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

missing=()
for package in "${packages[@]}"; do
  [ "$package" = golang-go ] && command -v go >/dev/null && continue
  have "$package" || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then
  say "all there"
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  say "skipped: no apt here to install ${missing[*]}"
  exit 0
fi
need_root "installing ${missing[*]}"
exclusively packages

policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600)
say "installing ${missing[*]}"
"${apt[@]}" update >/dev/null || say "the package lists could not be renewed; trying with those that are here"
"${apt[@]}" install --no-install-recommends "${missing[@]}" >"$TESTBED/packages.log" 2>&1 || {
  tail -n 20 "$TESTBED/packages.log"
  say "failed; see $TESTBED/packages.log"
  exit 1
}
