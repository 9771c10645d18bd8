"""The command line: the same backend as the pages, headless. See ``docs/cli.md``."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from explorer.commands import COMMANDS
from explorer.commands.command import show
from explorer.exports import plain
from explorer.records import PRECISIONS, ExplorerError
from explorer.session import Fault

DONE, FAULT, BAD_INPUT = 0, 1, 2


class _Parser(argparse.ArgumentParser):
    """Answers misuse with one sentence instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message}. Try {self.prog} --help.\n")


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    top = _Parser(prog="python -m explorer", description="Virtual Neuron Explorer, headless.")
    commands = top.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for command in COMMANDS.values():
        each = commands.add_parser(command.name, help=command.help, description=command.help)
        each.add_argument("--json", action="store_true", help="print one JSON object")
        if command.workspace:
            _choose_workspace(each)
        command.options(each)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 (done), 2 (bad input) or 1 (a fault of ours)."""
    args = parser().parse_args(argv)
    try:
        found = COMMANDS[args.command].run(args)
        if found is not None and args.json:
            print(json.dumps(plain(found), allow_nan=False))
        elif found is not None:
            show(found)
    except ExplorerError as error:
        return _complain(error, BAD_INPUT)
    except Fault as error:
        return _complain(error, FAULT)
    except KeyboardInterrupt:
        return _complain("stopped; what was computed is kept.", BAD_INPUT)
    except BrokenPipeError:
        sys.stderr.close()
    except Exception:  # noqa: BLE001 - the last resort: a traceback for us, a sentence for them
        traceback.print_exc()
        return _complain("this is a fault of ours: please report what is printed above.", FAULT)
    return DONE


def _complain(sentence: object, code: int) -> int:
    print(f"explorer: {' '.join(str(sentence).split())}", file=sys.stderr)
    return code


def _choose_workspace(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workspace")
    group.add_argument("--workspace", default="", help="one of explorer.toml (default: the first)")
    group.add_argument("--network", default="", help="timm:NAME, torchvision:NAME or toy:SIZE")
    group.add_argument("--weights", default="", help="default, an enum name, a file, edits:FILE")
    group.add_argument("--images", default="", help="a folder, imagenette or demo")
    group.add_argument("--embedder", default="", help="open_clip:..., conse or network:...")
    group.add_argument("--precision", choices=PRECISIONS, help="of scans (default: float32)")
    group.add_argument("--inline", action="store_true", help="compute in this process")


if __name__ == "__main__":
    raise SystemExit(main())
