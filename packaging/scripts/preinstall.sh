#!/bin/sh
# Before files are replaced: the daemon ends in order (it undoes what its runs hold, within TimeoutStopSec) and is
# started again afterwards. It never waits for a job: what was running is begun again and takes over what is stored.
# Debian calls it with "upgrade VERSION", rpm with the number of installations that there will be.
set -e
case "${1:-}" in
upgrade | 2) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
    for unit in pra-agent.socket pra-agent.service; do
        if systemctl --quiet is-active "$unit"; then
            echo "$unit" >>/run/pra-agent.upgrade
        fi
    done
    # Together: the socket would otherwise start the daemon from half replaced files.
    systemctl stop pra-agent.socket pra-agent.service || true
fi
# Compiled by the installation, so no package owns it.
find /opt/pra-agent -depth -name __pycache__ -exec rm -rf {} + 2>/dev/null || true
