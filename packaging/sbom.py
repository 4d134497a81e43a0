"""Writes a CycloneDX bill of materials: `sbom.py LOCK SITE_PACKAGES VERSION EPOCH > sbom.cdx.json`.

The lock says what is in the package and by which hashes; the installed metadata say under which licence. The same
input gives the same bytes.
"""

import json
import re
import sys
import uuid
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s\\;]+)")
_HASH = re.compile(r"--hash=sha256:(?P<digest>[0-9a-f]{64})")
#: Projects that tell their licence by a file alone.
_BY_FILE = {"The MIT License (MIT)": "MIT", "MIT License": "MIT"}


def normal(name: str) -> str:
    """A project's name as the index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licences(site: Path) -> dict[str, str]:
    """The licence that each installed project declares: an SPDX expression where it has one."""
    found: dict[str, str] = {}
    for metadata in sorted(site.glob("*.dist-info/METADATA")):
        headers = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        told = headers.get("License-Expression") or headers.get("License") or ""
        classified = [
            value.rsplit("::", 1)[-1].strip() for value in headers.get_all("Classifier") or () if "License ::" in value
        ]
        if not told and not classified:
            texts = [path.read_text(encoding="utf-8") for path in sorted(metadata.parent.glob("licenses/LICENSE*"))]
            told = next((_BY_FILE[line] for text in texts for line in text.splitlines()[:1] if line in _BY_FILE), "")
        short = told.strip().splitlines()[:1]
        found[normal(str(headers["Name"]))] = short[0] if short and len(short[0]) < 80 else " OR ".join(classified)
    return found


def components(lock: str, known: dict[str, str]) -> list[dict[str, object]]:
    """One component for each pin, in the lock's order."""
    made: list[dict[str, object]] = []
    for block in re.split(r"\n(?=\S)", lock):
        pin = _PIN.match(block)
        if pin is None:
            continue
        name, version = normal(pin["name"]), pin["version"]
        component: dict[str, object] = {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "properties": [{"name": "sha256", "value": digest} for digest in sorted(set(_HASH.findall(block)))],
        }
        if known.get(name):
            component["licenses"] = [{"license": {"name": known[name]}}]
        made.append(component)
    return made


def bill(lock: str, known: dict[str, str], version: str, epoch: int) -> dict[str, object]:
    """The whole document."""
    parts = components(lock, known)
    own = f"pkg:pypi/pra-agent@{version}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, own + lock)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "pra-agent",
                "version": version,
                "purl": own,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": parts,
        "dependencies": [{"ref": own, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def main() -> None:
    """As a program."""
    lock, site, version, epoch = sys.argv[1:]
    made = bill(Path(lock).read_text(encoding="utf-8"), licences(Path(site)), version, int(epoch))
    sys.stdout.write(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
