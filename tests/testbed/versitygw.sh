#!/usr/bin/env bash
# A real S3 server over a directory: conditional puts, checked checksums, versions, object lock. Started by
# tests/support/s3.py.
set -euo pipefail
# shellcheck source=tests/testbed/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"
go_tool github.com/versity/versitygw/cmd/versitygw "${VERSITYGW_VERSION:-v1.8.0}" versitygw
