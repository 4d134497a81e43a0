"""The same history and policies put to stock restic: the same snapshots kept, for the same reasons.

Stock 0.14 does not know that the oldest snapshot is kept while a count is not used up; reasons that start with
"oldest" are left out of the comparison there. `min_count` has no counterpart and is set to 0.
"""

import hashlib
import json
import os
import shutil
import subprocess
from base64 import b64encode
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pra_agent.model.snapshots import Snapshot
from pra_agent.repository.codec import Codec, MasterKey
from pra_agent.retention import Keep, decide

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "retention.json").read_text())
ZONE = ZoneInfo(GOLDEN["zone"])
RESTIC = shutil.which("restic")
PASSWORD = "correct horse"
ASKED = [case["keep"] for case in GOLDEN["cases"] if set(case["keep"]) - {"min_count"}]

pytestmark = [
    pytest.mark.peer,
    pytest.mark.xdist_group("retention-peer"),
    pytest.mark.skipif(RESTIC is None, reason="no restic on this machine"),
]


def key_file(master: MasterKey) -> bytes:
    """A key slot that is cheap to open."""
    salt = os.urandom(64)
    user = hashlib.scrypt(PASSWORD.encode(), salt=salt, n=1024, r=8, p=1, dklen=64)
    sealed = Codec(MasterKey.split(user)).seal(master.to_json())
    slot = {"kdf": "scrypt", "N": 1024, "r": 8, "p": 1, "salt": b64encode(salt).decode()}
    return json.dumps({**slot, "data": b64encode(sealed).decode()}).encode()


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Snapshot]]:
    """The golden history of the past, as snapshot files of a repository that has nothing else."""
    root = tmp_path_factory.mktemp("peer")
    codec = Codec(master := MasterKey.generate())
    for folder in ("keys", "locks", "snapshots", "index", "data"):
        (root / folder).mkdir()
    config = {"version": 2, "id": os.urandom(32).hex(), "chunker_polynomial": "3da3358b4dc173"}
    (root / "config").write_bytes(codec.seal(json.dumps(config).encode()))
    slot = key_file(master)
    (root / "keys" / hashlib.sha256(slot).hexdigest()).write_bytes(slot)
    shots = []
    for row in GOLDEN["snapshots"]:
        moment = datetime.fromisoformat(row["time"])
        if moment > datetime.fromisoformat(GOLDEN["now"]):
            continue
        fields = {"tree": "00" * 32, "paths": ["/srv"], "hostname": "web-1"}
        tags = [tag for tag in row["tags"] if tag in {"weekly-tape", "audit"}]
        document = {"time": moment.astimezone(ZONE).isoformat(), **fields, **({"tags": tags} if tags else {})}
        sealed = codec.seal_unpacked(json.dumps(document).encode())
        name = hashlib.sha256(sealed).hexdigest()
        (root / "snapshots" / name).write_bytes(sealed)
        shots.append(Snapshot(time=moment, tree=bytes(32), paths=("/srv",), hostname="web-1", tags=tags, id=name))
    return root, shots


def ask_stock(repository: Path, keep: dict[str, Any]) -> dict[str, list[str]]:
    argv = [str(RESTIC), "forget", "--dry-run", "--json", "--no-lock", "--no-cache", "--group-by", "host"]
    for name, value in keep.items():
        for item in value if isinstance(value, list) else [value]:
            if name != "min_count":
                option = "tag" if name == "tags" else name.replace("_", "-")
                argv += [f"--keep-{option}", "99999" if item == "all" else str(item)]
    environment = {"PATH": "/usr/bin", "TZ": GOLDEN["zone"], "RESTIC_PASSWORD": PASSWORD, "HOME": "/nonexistent"}
    environment["RESTIC_REPOSITORY"] = str(repository)
    done = subprocess.run(argv, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    (group,) = json.loads(done.stdout)
    pairs = zip(group["keep"], group["reasons"], strict=True)
    return {kept["id"]: [m for m in reason["matches"] if not m.startswith("oldest")] for kept, reason in pairs}


@pytest.mark.parametrize("keep", ASKED, ids=lambda keep: json.dumps(keep)[1:-1].replace('"', ""))
def test_stock_restic_keeps_the_same_for_the_same_reasons(
    history: tuple[Path, list[Snapshot]], keep: dict[str, Any]
) -> None:
    repository, shots = history
    decisions = decide(shots, Keep(**{**keep, "min_count": 0}), datetime.fromisoformat(GOLDEN["now"]), ZONE)
    ours = {d.snapshot.id: [r for r in d.reasons if not r.startswith("oldest")] for d in decisions}
    theirs = ask_stock(repository, keep)
    assert {k: v for k, v in ours.items() if v} == {k: v for k, v in theirs.items() if v}
