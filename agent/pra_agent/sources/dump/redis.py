"""Redis: the RDB file that the server sends to a replica.

It is put back without a restart: a second server, in the same place and for a moment, loads the file, and the live
one becomes its replica until it has everything.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pra_agent.errors import CommandError, RefusedError, SourceError
from pra_agent.sources.dump.preset import Part, Runner, asked
from pra_agent.sources.dump.settings import DumpSettings
from pra_agent.sources.dump.stream import Demand
from pra_agent.sources.source import ReinstateContext

FILE = "dump.rdb"
#: The opcode of the end, eight bytes of checksum, and the mark of a diskless transfer, which loading ignores.
_END = re.compile(rb"\xff.{8}(?:[0-9a-f]{40})?\Z", re.DOTALL)
_TAKE_FILE = 'umask 077 && mkdir "$0" && cat >"$0/dump.rdb"'
_POLL_SECONDS = 0.2
_SYNC_POLLS = 9000


@dataclass(frozen=True, slots=True)
class RedisPreset:
    """One server, all its databases at one instant (the server forks to write them)."""

    settings: DumpSettings
    env: Mapping[str, str]

    def parts(self, runner: Runner) -> Sequence[Part]:
        self._ask(runner, "PING")
        demand = Demand(f"redis {runner.where}", head=b"REDIS", tail=_END, min_bytes=self.settings.min_bytes)
        return [Part(FILE, demand, self._argv("--rdb", "-"), self.env)]

    def databases(self, runner: Runner) -> Sequence[str]:  # noqa: ARG002 - the contract's
        return ()

    def reinstate(self, runner: Runner, directory: str, context: ReinstateContext) -> Sequence[str]:
        keys = sum(int(found) for found in re.findall(r"keys=(\d+)", self._ask(runner, "INFO", "keyspace")))
        if keys and not context.force:
            raise RefusedError(
                f"redis {runner.where} holds {keys} keys",
                advice="They would be replaced as a whole; say --force to do so (they are kept in a file beside).",
            )
        if context.dry_run:
            return [f"would replace the {keys} keys of redis {runner.where}"]
        done = [self._keep(runner, context.run)] if keys else []
        place = f"/tmp/pra-redis-{secrets.token_hex(8)}"  # noqa: S108 (made by mkdir, which refuses what is there)
        try:
            with (
                (Path(directory) / FILE).open("rb") as file,
                runner.feed(["sh", "-c", _TAKE_FILE, place], {}, context.stop) as to,
            ):
                while piece := file.read(1 << 18):
                    to.write(piece)
            self._replicate(runner, place, context)
        finally:
            runner.run(["rm", "-rf", "--", place], {})
        return [*done, f"redis: {self._ask(runner, 'DBSIZE').strip()} keys in the first database {runner.where}"]

    def _keep(self, runner: Runner, run: str) -> str:
        where = self._ask(runner, "CONFIG", "GET", "dir").strip().split("\n")[-1]
        kept = f"{where}/before-{run}.rdb"
        ended = runner.run(self._argv("--rdb", kept), self.env)
        if ended.code != 0:
            raise SourceError(f"redis {runner.where}: what is there could not be kept as {kept}: {ended.stderr}")
        return f"redis: what was there is kept as {kept} {runner.where}"

    def _replicate(self, runner: Runner, place: str, context: ReinstateContext) -> None:
        port, password = 20000 + secrets.randbelow(40000), secrets.token_hex(16)
        lines = [f"port {port}", "bind 127.0.0.1", f"requirepass {password}", f"dir {place}", 'save ""']
        lines += ["daemonize yes", f"logfile {place}/log", "enable-debug-command no"]
        with runner.feed(["redis-server", "-"], {}, context.stop) as to:
            to.write("\n".join([*lines, ""]).encode())
        helper = ["redis-cli", "-h", "127.0.0.1", "-p", str(port)]
        login = {"REDISCLI_AUTH": password}
        before = self._ask(runner, "CONFIG", "GET", "masterauth").strip("\n").split("\n")[-1]
        try:
            self._wait(runner, helper, login, ("PING",), "PONG", context)
            # By stdin: a password is never an argument.
            self._tell(runner, f"CONFIG SET masterauth {password}", context)
            self._ask(runner, "REPLICAOF", "127.0.0.1", str(port))
            own = self._argv()
            self._wait(runner, own, self.env, ("INFO", "replication"), "master_link_status:up", context)
        finally:
            self._ask(runner, "REPLICAOF", "NO", "ONE")
            self._tell(runner, f'CONFIG SET masterauth "{"" if before == "masterauth" else before}"', context)
            runner.run([*helper, "SHUTDOWN", "NOSAVE"], login)

    def _wait(
        self,
        runner: Runner,
        client: Sequence[str],
        env: Mapping[str, str],
        question: Sequence[str],
        answer: str,
        context: ReinstateContext,
    ) -> None:
        for _ in range(_SYNC_POLLS):
            if answer in runner.run([*client, *question], env).stdout.decode(errors="replace"):
                return
            if context.stop.wait(_POLL_SECONDS):
                raise CommandError(f"redis {runner.where}: stopped, because the run ends")
        raise CommandError(f"redis {runner.where}: no answer {answer!r} to {' '.join(question)}")

    def _tell(self, runner: Runner, command: str, context: ReinstateContext) -> None:
        with runner.feed(self._argv("-e"), self.env, context.stop) as to:
            to.write(command.encode() + b"\n")

    def _ask(self, runner: Runner, *command: str) -> str:
        told = asked(runner, self._argv(*command), self.env, "redis")
        if re.match(r"(NOAUTH|WRONGPASS|ERR|DENIED|LOADING)\b", told):
            raise SourceError(f"redis {runner.where}: {told.strip()}", advice="Check the job's password and user.")
        return told

    def _argv(self, *options: str) -> list[str]:
        chosen = self.settings
        argv = ["redis-cli", "--no-auth-warning"]
        argv += ["-h", chosen.host] if chosen.host else []
        argv += ["-p", str(chosen.port)] if chosen.port else []
        argv += ["-s", str(chosen.socket)] if chosen.socket else []
        argv += ["--user", chosen.user] if chosen.user else []
        return [*argv, *options]
