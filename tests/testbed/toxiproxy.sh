#!/usr/bin/env bash
# A TCP proxy that delays, throttles, cuts and resets. Started by tests/support/toxiproxy.py.
set -euo pipefail
# shellcheck source=tests/testbed/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"
go_tool github.com/Shopify/toxiproxy/v2/cmd/server "${TOXIPROXY_VERSION:-v2.12.0}" toxiproxy-server
