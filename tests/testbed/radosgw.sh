#!/bin/bash
# Ceph's S3 with users, policies, object lock and KMS: installed by packages.sh, made and started by tests/support/radosgw.py.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
for program in ceph-mon ceph-osd radosgw radosgw-admin ceph; do
  if ! command -v "$program" >/dev/null; then
    say "skipped: $program is not here; see packages.sh"
    exit 0
  fi
done
say "$(radosgw --version | cut -d' ' -f1-3) is there"
