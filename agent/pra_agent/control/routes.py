"""The routes: one table, from which the server, docs/openapi.json and the tests are made.

What may come in is written here and nowhere else: names of configured jobs, ids, and the options below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from pra_agent.control.peers import Role
from pra_agent.control.protocol import BLOBS_TYPE, EVENTS_TYPE, HANDLES_TYPE, JSON_TYPE

_HEX: Final = r"^[0-9a-f]{64}$"
Method = Literal["GET", "POST", "PUT", "DELETE"]


class Options(BaseModel):
    """The body of a request; an empty body stands for all defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunOptions(Options):
    """How a backup is to run."""

    full: bool = Field(default=False, description="Read every byte instead of trusting metadata.")


class OperationOptions(Options):
    """What an operation is to do."""

    job: str = Field("", max_length=200, description="A configured job; empty for the whole repository.")
    dry_run: bool = Field(default=False, description="Only tell what would be done.")
    read_data_subset: str = Field(
        "",
        max_length=20,
        pattern=r"^(|100%|[0-9]{1,2}(\.[0-9]+)?%|[0-9]{1,6}/[0-9]{1,6})$",
        description="Share of the packs that a check reads: 5%, or n/t for the n-th of t parts.",
    )


class HoldOptions(Options):
    """Which jobs are held or released."""

    jobs: tuple[str, ...] = Field((), max_length=1000, description="Configured jobs; none stands for all.")
    reason: str = Field("", max_length=500, description="Why, for the journal.")


class ProofOptions(Options):
    """Which escrow slot was proven."""

    slot: str = Field(pattern=_HEX, description="The slot's id.")


class RestoreOptions(Options):
    """What a restore session is for."""

    purpose: str = Field("", max_length=500, description="For the audit line.")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the path or the query."""

    name: str
    description: str
    place: Literal["path", "query"] = "path"
    pattern: str = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
    #: Whether the name alone, without a value, counts (`?wait`).
    flag: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `name` is the handler's; `roles` any of which suffices, none of them means root alone."""

    method: Method
    path: str
    name: str
    roles: frozenset[Role]
    summary: str
    parameters: Sequence[Parameter] = ()
    body: type[Options] | None = None
    handles: bool = False
    answer: str = "Any"
    many: bool = False
    content: str = JSON_TYPE
    status: int = 200


_RUN: Final = frozenset((Role.RUN,))
_READ: Final = frozenset((Role.READ,))
_ANY: Final = frozenset(Role)
_ROOT: Final = frozenset[Role]()

_JOB: Final = Parameter("job", "Name of a configured job.")
_WAIT: Final = Parameter("wait", "Stream the run's events until its record.", "query", flag=True)
_RUN_ID: Final = Parameter("run", "Id of a run.")
_OPERATION: Final = Parameter("operation", "Name of an operation.", pattern=r"^(check|copy|drill|forget|prune)$")
_SESSION: Final = Parameter("restore", "Id of the restore session.", "query", r"^[A-Za-z0-9_-]{20,64}$")
_RESTORE: Final = Parameter("restore", "Id of the restore session.", "path", _SESSION.pattern)
_SNAPSHOT: Final = Parameter("id", "Id of a snapshot: its first 4 hex digits or more.", pattern=r"^[0-9a-f]{4,64}$")
_TREE: Final = Parameter("id", "Id of a tree: 64 hex digits.", pattern=_HEX)
_FILTER: Final = Parameter("job", "Only runs of this job.", "query")
_LIMIT: Final = Parameter("limit", "At most so many, 1 to 10000; 100 without it.", "query", r"^[1-9][0-9]{0,4}$")

ROUTES: Final[Sequence[Route]] = (
    Route("GET", "/v1/status", "status", _ANY, "The daemon itself.", answer="DaemonStatus"),
    Route("GET", "/v1/jobs", "jobs", _ANY, "All jobs as they stand.", answer="JobStatus", many=True),
    Route(
        "POST",
        "/v1/jobs/{job}/run",
        "run_job",
        _RUN,
        "Back the job up now.",
        (_JOB, _WAIT),
        RunOptions,
        answer="Started",
        status=202,
    ),
    Route("POST", "/v1/jobs/{job}/accept", "accept", _RUN, "Accept the job's suspect snapshot.", (_JOB,), status=204),
    Route("GET", "/v1/runs", "runs", _ANY, "Runs, the newest first.", (_FILTER, _LIMIT), answer="RunRecord", many=True),
    Route("GET", "/v1/runs/{run}", "run", _ANY, "One run.", (_RUN_ID,), answer="RunRecord"),
    Route(
        "GET",
        "/v1/runs/{run}/events",
        "events",
        _ANY,
        "The run's events from now on, at last its record.",
        (_RUN_ID,),
        answer="Event",
        content=EVENTS_TYPE,
    ),
    Route(
        "POST",
        "/v1/operations/{operation}",
        "operate",
        _RUN,
        "Start another operation.",
        (_OPERATION, _WAIT),
        OperationOptions,
        answer="Started",
        status=202,
    ),
    Route("POST", "/v1/runs/{run}/pause", "pause", _RUN, "Let a run stand still.", (_RUN_ID,), status=204),
    Route("POST", "/v1/runs/{run}/resume", "resume", _RUN, "Let a paused run go on.", (_RUN_ID,), status=204),
    Route("POST", "/v1/runs/{run}/stop", "stop", _RUN, "Ask a run to stop.", (_RUN_ID,), status=204),
    Route(
        "POST",
        "/v1/escrow/proven",
        "escrow_proven",
        _ROOT,
        "Note that an escrow slot was proven to open the repository.",
        (),
        ProofOptions,
        status=204,
    ),
    Route("POST", "/v1/hold", "hold", _RUN, "Start no scheduled run until the release.", (), HoldOptions, status=204),
    Route("POST", "/v1/release", "release", _RUN, "End the hold.", (), HoldOptions, status=204),
    Route(
        "POST",
        "/v1/restores",
        "open_restore",
        _READ,
        "Open a restore session: a lease that holds the shared lock.",
        (),
        RestoreOptions,
        answer="Restore",
        status=201,
    ),
    Route("PUT", "/v1/restores/{restore}", "renew", _READ, "Renew the lease.", (_RESTORE,), answer="Restore"),
    Route("DELETE", "/v1/restores/{restore}", "close_restore", _READ, "End the session.", (_RESTORE,), status=204),
    Route(
        "GET",
        "/v1/snapshots",
        "snapshots",
        _READ,
        "All snapshots, the oldest first.",
        (_SESSION,),
        answer="Snapshot",
        many=True,
    ),
    Route("GET", "/v1/snapshots/{id}", "snapshot", _READ, "One snapshot.", (_SNAPSHOT, _SESSION), answer="Snapshot"),
    Route("GET", "/v1/trees/{id}", "tree", _READ, "One directory's listing.", (_TREE, _SESSION), answer="Tree"),
    Route(
        "POST",
        "/v1/trees",
        "trees",
        _READ,
        "Listings of directories, in pack order, as batches of frames.",
        (_SESSION,),
        handles=True,
        content=BLOBS_TYPE,
    ),
    Route(
        "POST",
        "/v1/blobs",
        "blobs",
        _READ,
        "Blobs, in pack order, as batches of frames.",
        (_SESSION,),
        handles=True,
        content=BLOBS_TYPE,
    ),
    Route(
        "POST",
        "/v1/sizes",
        "sizes",
        _READ,
        "Lengths of blobs, 4 bytes each in the order of the question; all ones where there is none.",
        (_SESSION,),
        handles=True,
        content=HANDLES_TYPE,
    ),
)
