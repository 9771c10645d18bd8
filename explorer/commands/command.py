"""What a command is, and how what it found is printed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from explorer.exports import plain
from explorer.methods.registry import METHODS

Found = Mapping[str, Any] | None
LONGEST_LIST = 12


def _no_options(parser: argparse.ArgumentParser) -> None:
    """For a command without options of its own."""


@dataclass(frozen=True)
class Command:
    """``run`` returns what was found, to print as JSON or as text; ``options`` adds to the parser;
    ``workspace`` says that the command is about one, chosen by the common options."""

    name: str
    help: str
    run: Callable[[argparse.Namespace], Found]
    options: Callable[[argparse.ArgumentParser], None] = _no_options
    workspace: bool = True


def show(found: Mapping[str, Any]) -> None:
    """Print for a person: rows as a table, everything else as ``name: value``."""
    for name, value in plain(found).items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            _show_rows(value)
        elif isinstance(value, list) and len(value) > LONGEST_LIST:
            shown = " ".join(map(str, value[:LONGEST_LIST]))
            print(f"{name}: {shown} ... ({len(value)} in all; --json prints them)")
        else:
            print(f"{name}: {value}")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """The option of commands that many devices can share."""
    parser.add_argument(
        "--engine",
        default="",
        metavar="E",
        help="local, ray (on this machine) or ray://HOST:PORT; computes in this process "
        "(default: EXPLORER_ENGINE)",
    )


def add_methods(parser: argparse.ArgumentParser, default: Sequence[str]) -> None:
    """The option of commands that judge several methods."""
    parser.add_argument(
        "--methods",
        nargs="+",
        default=default,
        metavar="M",
        help=f"NAME or NAME:PARAMETER=VALUE,... of {', '.join(METHODS)} "
        f"(default: {' '.join(default)})",
    )


def add_references(parser: argparse.ArgumentParser) -> None:
    """The options of commands whose references are the highest pictures."""
    parser.add_argument("--references", type=int, default=100, help="pictures (default: 100)")
    parser.add_argument("--by", default="max", choices=("max", "mean"), help="default: max")


def progress(fraction: float, message: str) -> None:
    """A line of progress on stderr."""
    print(f"{fraction:4.0%} {message}", file=sys.stderr, flush=True)


def _show_rows(rows: list[dict[str, Any]]) -> None:
    columns = [name for name, value in rows[0].items() if not isinstance(value, list | dict)]
    cells = [columns, *([_cell(row[name]) for name in columns] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(padded).rstrip())


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
