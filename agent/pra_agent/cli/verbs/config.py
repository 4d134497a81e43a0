"""config: check, show or describe the configuration."""

import json
from typing import Annotated

import typer

from pra_agent.cli.asking import ask_secret
from pra_agent.cli.durations import usual_durations
from pra_agent.cli.options import options
from pra_agent.cli.output import Output, count, to_json
from pra_agent.config import ConfigProblems, read
from pra_agent.config.checking import problems
from pra_agent.config.places import Problem
from pra_agent.config.schema import config_schema
from pra_agent.config.secrets import Resolver

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@app.command()
def check(
    context: typer.Context,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for errors.")] = False,
) -> None:
    """Find everything that is wrong with the configuration, before anything runs.

    Unknown keys, bad schedules, missing paths and secrets, schedules that cannot hold the RPO, files that others can
    write: one line each, with file, line, key and a suggestion. Exit code 2 when there is an error.
    """
    chosen = options(context)
    output = Output.of(chosen)
    found: list[Problem]
    try:
        loaded = read(chosen.config)
        checked = problems(loaded, resolver=Resolver(ask=ask_secret), durations=usual_durations(loaded.config))
        found = sorted(checked, key=lambda p: (p.place, p.key))
        summary = count(len(loaded.config.jobs), "job")
    except ConfigProblems as error:
        found, summary = list(error.problems), ""
    bad = [problem for problem in found if strict or not problem.warning]
    output.data(
        {
            "type": "config_check",
            "ok": not bad,
            "problems": [
                {
                    "file": problem.place.file,
                    "line": problem.place.line,
                    "key": problem.key,
                    "message": problem.what,
                    "suggestion": problem.suggestion,
                    "level": "warning" if problem.warning else "error",
                }
                for problem in found
            ],
        }
    )
    for problem in found:
        output.line(f"{'warning: ' if problem.warning else ''}{problem}")
    if bad:
        raise typer.Exit(2)
    output.line(f"{chosen.config}: ok, {summary}" + (f", {count(len(found), 'warning')}" if found else ""))


@app.command()
def show(context: typer.Context) -> None:
    """Print the configuration as it takes effect: all files and defaults merged. References stay references."""
    chosen = options(context)
    config = read(chosen.config).config
    plain = config.model_dump(mode="json", exclude_none=True)
    if chosen.json:
        print(to_json(plain))
        return
    print(_yaml(plain), end="")


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors and for other programs."""
    print(json.dumps(config_schema(), indent=2))


def _yaml(plain: object) -> str:
    from io import StringIO  # noqa: PLC0415 - beside ruamel, which only this needs

    from ruamel.yaml import YAML  # noqa: PLC0415 - slow to import

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = StringIO()
    yaml.dump(plain, text)  # pyright: ignore[reportUnknownMemberType] - ruamel.yaml has no types here
    return text.getvalue()
