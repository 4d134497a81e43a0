"""Writes all dashboards into a directory."""

import sys
from pathlib import Path

from pra_dashboards import DASHBOARDS, render

target = Path(sys.argv[1] if len(sys.argv) > 1 else "grafana/dashboards")
for name in DASHBOARDS:
    (target / name).write_text(render(name))
