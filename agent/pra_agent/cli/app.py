"""The way from the words of a command line to an exit code. Only the module of the verb that is called is imported."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

from pra_agent import __version__
from pra_agent.cli.options import CONFIG_VARIABLE, DEFAULT_CONFIG, Options, arrange
from pra_agent.cli.output import is_terminal, report_error
from pra_agent.cli.verb_table import EXIT_CODES, PROGRAM, VERBS
from pra_agent.errors import Interrupted, PraError

COMPLETE_VARIABLE = "_PRA_AGENT_COMPLETE"


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    completing = COMPLETE_VARIABLE in os.environ
    words = _completed_words() if completing else arguments
    arranged, verb = arrange(words, frozenset(VERBS))
    try:
        result: object = typer.main.get_command(build(verb, completing=completing)).main(
            args=arranged, prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, standalone_mode=False
        )
    except KeyboardInterrupt:
        return _failed(Interrupted("interrupted"), arranged)
    except BrokenPipeError:
        # Whoever read our output has enough of it; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except Exception as error:  # noqa: BLE001 - the last door: everything becomes a line and an exit code
        return _failed(error, arranged)
    if result == Interrupted.exit_code:
        return _failed(Interrupted("interrupted"), arranged)
    return result if isinstance(result, int) else 0


def _completed_words() -> list[str]:
    """The words that a shell wants completed, the program's name left out."""
    return (os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")).split()[1:]


def build(verb: str, *, completing: bool = False) -> typer.Typer:
    """Make the command line with one verb loaded; the others are there for the help alone."""
    app = typer.Typer(
        name=PROGRAM,
        add_completion=completing,
        no_args_is_help=True,
        rich_markup_mode="rich" if is_terminal(sys.stdout) else None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        epilog=" ".join(EXIT_CODES),
    )
    app.callback()(_everywhere)
    for name, entry in VERBS.items():
        if name != verb:
            app.command(name, help=entry.help, rich_help_panel=entry.panel)(_placeholder)
            continue
        module = importlib.import_module(f"pra_agent.cli.verbs.{entry.module}")
        if entry.group:
            app.add_typer(module.app, name=name, help=entry.help, rich_help_panel=entry.panel)
        else:
            command = cast("Callable[..., object]", getattr(module, entry.function))
            app.command(name, rich_help_panel=entry.panel, epilog=_EPILOG)(command)
    return app


_EPILOG = "Everywhere: --config FILE, --direct, --json, --quiet, --debug, on either side of the verb."


def _placeholder() -> None:
    """Stand for a verb in the help."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _everywhere(  # noqa: PLR0913, PLR0917 - one parameter per option is what typer wants
    context: typer.Context,
    config: Annotated[
        Path, typer.Option("--config", "-c", envvar=CONFIG_VARIABLE, metavar="FILE", help="The configuration.")
    ] = DEFAULT_CONFIG,
    direct: Annotated[
        bool, typer.Option("--direct", help="Open the repository in this process, without the daemon.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON (documented in docs/json.md).")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and results only.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    as_node: Annotated[
        str, typer.Option("--as-node", metavar="NODE", help="Read another node's repository (with --direct).")
    ] = "",
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")] = (
        False
    ),
) -> None:
    """Keep this host recoverable: encrypted, deduplicated backups in restic's repository format."""
    del version
    context.obj = Options(config=config, direct=direct, json=json, quiet=quiet, debug=debug, as_node=as_node)


def _failed(error: Exception, arguments: Sequence[str]) -> int:
    if "--debug" in arguments:
        traceback.print_exception(error)
    as_json = "--json" in arguments
    if isinstance(error, PraError):
        report_error(error.message, error.advice, error.exit_code, as_json=as_json)
        return error.exit_code
    if isinstance(error, typer.Abort):
        return _failed(Interrupted("interrupted"), arguments)
    describe: object = getattr(error, "format_message", None)
    if callable(describe):  # a usage error of typer
        context: object = getattr(error, "ctx", None)
        path = getattr(context, "command_path", PROGRAM)
        report_error(str(describe()).rstrip("."), f"See {path} --help.", 2, as_json=as_json)
        return 2
    if isinstance(error, OSError) and error.filename is not None:
        report_error(f"{error.filename}: {error.strerror}", "", 1, as_json=as_json)
        return 1
    report_error(
        f"internal error: {type(error).__name__}: {error}",
        "This is a defect; run it again with --debug and report what it shows.",
        1,
        as_json=as_json,
    )
    return 1
