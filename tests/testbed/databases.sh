#!/usr/bin/env bash
# PostgreSQL and Redis from Debian's packages; the tests start servers of their own, below temporary directories.
set -euo pipefail
# shellcheck source=tests/testbed/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"
need_root "PostgreSQL and Redis"
packages postgresql postgresql-client redis-server redis-tools sqlite3
