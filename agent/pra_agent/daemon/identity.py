"""Whose repository it is: bound to a node's name and a machine, so that a clone does not write into its original's.

The machine is told by a hash of its machine-id (which itself is to be kept to the host). Every snapshot of ours carries
it as the tag `machine=`; the state directory remembers what was confirmed or adopted.
"""

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import cast

from pra_agent.errors import IdentityError
from pra_agent.model.snapshots import AGENT_TAG, Snapshot
from pra_agent.repository.host import Host
from pra_agent.repository.state import write_atomically

_TAG = "machine="
_FILE = "identity.json"


@dataclass(frozen=True, slots=True)
class Binding:
    """What the state directory remembers: the node and machine, and since when another's snapshots are ours too."""

    node: str
    machine: str
    adopted: datetime | None = None


def machine_of(host: Host) -> str:
    """The machine's name in tags: 16 hex digits that do not give the machine-id away; "" where there is none."""
    if not host.machine_id:
        return ""
    return hmac.new(host.machine_id.encode(), b"pra-agent machine", sha256).hexdigest()[:16]


def machine_tags(host: Host) -> tuple[str, ...]:
    """The tag of our snapshots."""
    machine = machine_of(host)
    return (f"{_TAG}{machine}",) if machine else ()


def confirm(snapshots: Iterable[Snapshot], host: Host, state: Path) -> None:
    """See that the repository is this host's; raises `IdentityError`. `state` is the repository's state directory."""
    binding = recall(state)
    machine = machine_of(host)
    if binding is not None and (binding.node, binding.machine) != (host.node, machine):
        raise IdentityError(
            f"the state directory is that of {binding.node} on another machine"
            if binding.node == host.node
            else f"the state directory is that of node {binding.node}, and this is {host.node}"
        )
    newest = max(
        (one for one in snapshots if AGENT_TAG in one.tags and _machine(one)), key=lambda one: one.time, default=None
    )
    if newest is not None and (newest.hostname, _machine(newest)) != (host.node, machine):
        adopted = binding.adopted if binding is not None else None
        if adopted is None or newest.time > adopted:
            raise IdentityError(
                f"the repository is used by {newest.hostname} on another machine (snapshot {newest.id[:8]})"
            )
    if binding is None:
        _remember(state, Binding(host.node, machine))


def confirmed(host: Host, state: Path) -> bool:
    """Whether it was confirmed or adopted before by this very host; then a run need not look at the snapshots."""
    binding = recall(state)
    return binding is not None and (binding.node, binding.machine) == (host.node, machine_of(host))


def adopt(host: Host, state: Path, now: datetime) -> None:
    """Take the repository over from another machine or node."""
    _remember(state, Binding(host.node, machine_of(host), now))


def recall(state: Path) -> Binding | None:
    """What the state directory remembers; None for nothing."""
    try:
        data = cast("Mapping[str, str]", json.loads((state / _FILE).read_text("utf-8")))
        adopted = data.get("adopted")
        return Binding(data["node"], data["machine"], datetime.fromisoformat(adopted) if adopted else None)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(state: Path, binding: Binding) -> None:
    data = {"node": binding.node, "machine": binding.machine}
    if binding.adopted is not None:
        data["adopted"] = binding.adopted.isoformat()
    write_atomically(state / _FILE, json.dumps(data).encode())


def _machine(snapshot: Snapshot) -> str:
    return next((tag.removeprefix(_TAG) for tag in snapshot.tags if tag.startswith(_TAG)), "")
