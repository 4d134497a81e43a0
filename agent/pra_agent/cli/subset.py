"""Which part of the data is read: options that check and repair share."""

import re
from typing import Annotated

import typer

_SUBSET = re.compile(r"100%|[0-9]{1,2}(\.[0-9]{1,4})?%|[1-9][0-9]{0,3}/[1-9][0-9]{0,3}")


def _checked(text: str) -> str:
    if text and not _SUBSET.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no part of the data; write it like 5% or 1/7")
    return text


ReadData = Annotated[bool, typer.Option("--read-data", help="Read and verify all data.")]
ReadDataSubset = Annotated[
    str,
    typer.Option(
        "--read-data-subset",
        metavar="PART",
        callback=_checked,
        help="Read and verify a part: 5% (chosen at random), or 1/7 (the first of seven).",
    ),
]


def chosen_subset(read_data: bool, subset: str) -> str:
    """The part as the operations write it; "" reads no data."""
    return "100%" if read_data else subset
