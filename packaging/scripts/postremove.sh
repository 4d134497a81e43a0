#!/bin/sh
# After files are removed. A removal leaves configuration, keys and journal. A purge takes configuration, journal and
# cache, but never a repository nor the password that opens it: they are what this program is for. The user stays, since
# its number is not to be given to another one.
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload || true
[ "${1:-}" = purge ] || exit 0
rm -rf /etc/pra-agent/conf.d /etc/systemd/system/pra-agent.service.d /etc/systemd/system/pra-agent.socket.d
for entry in /var/lib/pra-agent/*; do
    if [ -d "$entry/keys" ] && [ -f "$entry/config" ]; then
        echo "pra-agent: the repository $entry is left where it is"
    else
        rm -rf "$entry"
    fi
done
rmdir /var/lib/pra-agent /etc/pra-agent 2>/dev/null || true
if [ -e /etc/pra-agent/repository-password ]; then
    echo "pra-agent: /etc/pra-agent/repository-password is left: without it, and without the recovery kit, nothing can be restored"
fi
