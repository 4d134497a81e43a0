"""Any other database: a command that writes the dump to its stdout, and one that reads it from its stdin."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pra_agent.errors import RefusedError
from pra_agent.sources.dump.preset import Part, Runner
from pra_agent.sources.dump.settings import DumpSettings
from pra_agent.sources.dump.stream import Demand
from pra_agent.sources.source import ReinstateContext

FILE = "dump"


@dataclass(frozen=True, slots=True)
class CustomPreset:
    """The operator's own commands, argument lists that no shell sees."""

    settings: DumpSettings
    env: Mapping[str, str]

    def parts(self, runner: Runner) -> Sequence[Part]:
        tail = re.compile(re.escape(self.settings.trailer.encode())) if self.settings.trailer else None
        demand = Demand(f"{self.settings.command[0]} {runner.where}", tail=tail, min_bytes=self.settings.min_bytes)
        return [Part(FILE, demand, self.settings.command, self.env)]

    def databases(self, runner: Runner) -> Sequence[str]:  # noqa: ARG002 - the contract's
        return ()

    def reinstate(self, runner: Runner, directory: str, context: ReinstateContext) -> Sequence[str]:
        command = self.settings.restore_command
        if not command:
            raise RefusedError(
                "this job has no restore_command",
                advice=f"Restore with --target and load the file {FILE} by hand, or add restore_command to the job.",
            )
        if not context.force:
            raise RefusedError(
                f"{command[0]} {runner.where} would be given the dump, whatever is there",
                advice="Say --force when what is there may be overwritten.",
            )
        if context.dry_run:
            return [f"would pipe the dump into {command[0]} {runner.where}"]
        with (Path(directory) / FILE).open("rb") as file, runner.feed(command, self.env, context.stop) as to:
            while piece := file.read(1 << 18):
                to.write(piece)
        return [f"{command[0]}: took the dump {runner.where}"]
