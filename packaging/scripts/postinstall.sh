#!/bin/sh
# After files are in place. Debian calls it with "configure" or "abort-...", rpm with a number.
set -e
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers pra-agent.conf
elif ! getent passwd pra-agent >/dev/null; then
    useradd --system --user-group --home-dir /var/lib/pra-agent --shell /usr/sbin/nologin pra-agent
fi
# Compiled here, since compiled files are not the same from one build to the next. Never checked against the source
# again: the package manager alone changes it.
/opt/pra-agent/bin/python3 -I -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/pra-agent/lib ||
    echo "pra-agent: some modules could not be compiled; they are at each start" >&2
[ -d /run/systemd/system ] || exit 0
systemd-tmpfiles --create pra-agent.conf || true
systemctl daemon-reload
if [ -e /run/pra-agent.upgrade ]; then
    units=$(cat /run/pra-agent.upgrade)
    rm -f /run/pra-agent.upgrade
    # shellcheck disable=SC2086 # one word for each unit
    systemctl start $units || {
        echo "pra-agent: the daemon does not start; the reason is told by: journalctl -u pra-agent -n 20" >&2
    }
elif ! systemctl --quiet is-enabled pra-agent.service 2>/dev/null; then
    echo "pra-agent: edit /etc/pra-agent/config.yaml, then: pra-agent init && systemctl enable --now pra-agent.socket pra-agent.service"
fi
