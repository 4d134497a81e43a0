#!/usr/bin/env bash
# Ceph's S3 with users, policies, object lock and KMS. tests/support/radosgw.py makes a cluster and starts it.
set -euo pipefail
# shellcheck source=tests/testbed/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"
packages radosgw ceph-mon ceph-osd ceph-common
say "$(radosgw --version | cut -d' ' -f1-3) is there"
