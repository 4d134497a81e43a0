#!/usr/bin/env bash
# The Debian packages that most tests need: stock restic, the tools of hard cases, and Ceph's S3 gateway.
# A second run costs a fraction of a second. The parts with servers of their own name their packages themselves.
set -euo pipefail
# shellcheck source=tests/testbed/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"

packages python3-venv restic acl attr e2fsprogs fuse3
packages radosgw ceph-mon ceph-osd ceph-common
command -v go >/dev/null || packages golang-go
command -v mvn >/dev/null || packages maven
say "all there"
