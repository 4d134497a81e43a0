"""The table of verbs: what the help says, and which module does it. Nothing slow is imported here."""

from dataclasses import dataclass

PROGRAM = "pra-agent"
EXIT_CODES = (
    "Exit codes: 0 success, 1 failed, 2 usage or configuration, 3 partial, 10 no repository, 11 locked,",
    "12 wrong key, 130 interrupted.",
)


@dataclass(frozen=True, slots=True)
class Verb:
    """One line of the help. `module` is below `cli.verbs`; a group's module has an `app`, another a `command`."""

    help: str
    panel: str
    module: str
    group: bool = False
    function: str = "command"


START, DAILY, RESTORE, CARE = "Getting started", "Backups", "Restores", "Care of the repository"

VERBS = {
    "demo": Verb("Back up, destroy, restore and verify in a temporary directory.", START, "demo"),
    "init": Verb("Create the repository and write the recovery kit.", START, "init"),
    "config": Verb("Check, show or describe the configuration.", START, "config", group=True),
    "doctor": Verb("Look for what would keep a backup or a restore from working.", START, "doctor"),
    "daemon": Verb("Run the daemon in the foreground.", START, "daemon"),
    "backup": Verb("Back jobs up now.", DAILY, "backup"),
    "status": Verb("Show how old every backup is, and what runs.", DAILY, "status"),
    "snapshots": Verb("List what can be restored.", RESTORE, "snapshots"),
    "ls": Verb("List what is in a snapshot.", RESTORE, "ls"),
    "find": Verb("Search snapshots for names.", RESTORE, "find"),
    "diff": Verb("Show what differs between two snapshots.", RESTORE, "diff"),
    "dump": Verb("Write one file of a snapshot to stdout.", RESTORE, "dump"),
    "restore": Verb("Bring files back.", RESTORE, "restore"),
    "hold": Verb("Start no scheduled run until the release.", DAILY, "holding", function="hold"),
    "release": Verb("End a hold.", DAILY, "holding", function="release"),
    "pause": Verb("Let a run stand still.", DAILY, "steering", function="pause"),
    "resume": Verb("Let a paused run go on.", DAILY, "steering", function="resume"),
    "stop": Verb("Ask a run to stop.", DAILY, "steering", function="stop"),
    "accept": Verb("Accept a backup that looks too small.", DAILY, "holding", function="accept"),
    "forget": Verb("Drop snapshots that no keep policy needs.", CARE, "forget"),
    "pin": Verb("Keep a snapshot whatever the policies say.", CARE, "pinning", function="pin"),
    "unpin": Verb("Let the policies judge a snapshot again.", CARE, "pinning", function="unpin"),
    "prune": Verb("Give back space that no snapshot needs.", CARE, "prune"),
    "check": Verb("Verify the repository.", CARE, "check"),
    "repair": Verb("Save what can be saved of a damaged repository.", CARE, "repair"),
    "copy": Verb("Bring the copies up to date.", CARE, "copy"),
    "key": Verb("The passwords that open the repository.", CARE, "key", group=True),
    "unlock": Verb("Remove locks of dead processes.", CARE, "unlock"),
    "observe": Verb("Look at repositories with the right to list them, and export it.", CARE, "observe"),
    "adopt": Verb("Take the repository over from another machine.", CARE, "adopt"),
    "completion": Verb("Print the shell's completion script.", START, "completion"),
}

OPTIONS = (
    ("-c, --config FILE", "The configuration (PRA_AGENT_CONFIG, else /etc/pra-agent/config.yaml)."),
    ("--direct", "Open the repository in this process, without the daemon."),
    ("--json", "Print JSON (documented in docs/json.md)."),
    ("-q, --quiet", "Print errors and results only."),
    ("--debug", "Show where an error comes from."),
    ("--as-node NODE", "Read another node's repository (with --direct)."),
    ("--version", "Say the version."),
    ("-h, --help", "Show this, or the help of a verb."),
)


def overview() -> str:
    """The help of the whole."""
    lines = [
        f"Usage: {PROGRAM} [OPTIONS] VERB [ARGUMENTS]",
        "",
        "Keep this host recoverable: encrypted, deduplicated backups in restic's repository format.",
    ]
    panels: dict[str, list[tuple[str, str]]] = {}
    for name, verb in VERBS.items():
        panels.setdefault(verb.panel, []).append((name, verb.help))
    panels["Options, on either side of the verb"] = list(OPTIONS)
    for panel, rows in panels.items():
        lines += ["", f"{panel}:", *(f"  {name:<19}{text}" for name, text in rows)]
    return "\n".join([*lines, "", *EXIT_CODES, "", f"{PROGRAM} VERB --help tells more."])
