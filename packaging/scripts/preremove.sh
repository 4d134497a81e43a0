#!/bin/sh
# Before files are removed for good. Debian calls it with "remove", rpm with 0; upgrades are preinstall.sh's affair.
set -e
case "${1:-}" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
    systemctl --quiet disable --now pra-agent.socket pra-agent.service || true
fi
find /opt/pra-agent -depth -name __pycache__ -exec rm -rf {} + 2>/dev/null || true
