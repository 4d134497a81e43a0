#!/usr/bin/env bash
# Prometheus, Alertmanager and their exporters from Debian's packages; nothing is started by them.
set -euo pipefail
# shellcheck source=tests/testbed/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"
need_root "Prometheus from packages"
packages prometheus prometheus-alertmanager
