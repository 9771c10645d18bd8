"""The command line: the same backend as the pages, headless. See ``docs/cli.md``."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields
from typing import get_type_hints

from explorer import commands
from explorer.methods.registry import METHODS
from explorer.records import ExplorerError

DONE, FAULT, BAD_INPUT = 0, 1, 2


class _Parser(argparse.ArgumentParser):
    """Answers misuse with one sentence instead of a page of usage."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(BAD_INPUT, f"{self.prog}: {message}. Try {self.prog} --help.\n")


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    top = _Parser(prog="python -m explorer", description="Virtual Neuron Explorer, headless.")
    subs = top.add_subparsers(dest="command", required=True, parser_class=_Parser)
    common = _common()

    def add(
        name: str, help: str, parents: Sequence[argparse.ArgumentParser] = (common,)
    ) -> _Parser:
        return subs.add_parser(name, help=help, description=help, parents=list(parents))

    plain = _output()
    add("demo", "fetch and compose the demo pictures", [plain])
    add("layers", "list the browsable layers of the network")
    each = add("scan", "scan the pictures; what is scanned already is not scanned again")
    each.add_argument("--layers", nargs="+", default=[], help="default: see docs/cli.md")
    each = add("neurons", "the table of a layer")
    each.add_argument("layer")
    each.add_argument("--sort", default="max", choices=commands.SORTS, help="default: max")
    each.add_argument("--search", default="", help="rank by words instead")
    each.add_argument("--limit", type=int, default=50, help="rows to print (default: 50)")
    _split_options(add("split", "split one neuron into virtual neurons"))
    each = add("figure", "draw a figure from its recipe")
    each.add_argument("recipe", help="a JSON file, as the page offers it")
    each.add_argument("-o", "--output", required=True, help="a .pdf, .svg or .png file")
    each = add("cache", "what is stored; --prune removes what exceeds the limit", [plain])
    each.add_argument("--prune", action="store_true", help="remove stale and excess answers")
    add("doctor", "check installation, device, folders and offline assets", [plain])
    each = add("serve", "start the worker and the pages", [plain])
    each.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    each.add_argument("--port", type=int, default=8501, help="default: 8501")
    add("worker", "run only the worker process", [plain])
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 (done), 2 (bad input) or 1 (a fault of ours)."""
    args = parser().parse_args(argv)
    try:
        answer = commands.COMMANDS[args.command](args)
    except ExplorerError as error:
        print(f"explorer: {error}", file=sys.stderr)
        return BAD_INPUT
    except commands.Fault as error:
        print(f"explorer: {error}", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt:
        print("explorer: stopped; what was computed is kept.", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        return DONE
    except Exception:
        traceback.print_exc()
        print("explorer: this is a fault of ours; please report it.", file=sys.stderr)
        return FAULT
    if answer is not None and args.json:
        print(json.dumps(commands.plain(answer), allow_nan=False))
    elif answer is not None:
        commands.show(args.command, answer)
    return DONE


def _output() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print one JSON object")
    return shared


def _common() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False, parents=[_output()])
    which = shared.add_argument_group("workspace")
    which.add_argument("--workspace", default="", help="one of explorer.toml (default: the first)")
    which.add_argument("--network", default="", help="timm:NAME or torchvision:NAME")
    which.add_argument("--weights", default="", help="default, an enum name, a file, package:NAME")
    which.add_argument("--images", default="", help="a folder, imagenette or demo")
    which.add_argument("--embedder", default="", help="open_clip:…, conse or network:…")
    shared.add_argument(
        "--inline", action="store_true", help="compute here even if a worker runs elsewhere"
    )
    return shared


def _split_options(each: argparse.ArgumentParser) -> None:
    each.add_argument("neuron", help="LAYER:CHANNEL")
    each.add_argument("--method", default="pure", help=f"one of {', '.join(METHODS)}")
    each.add_argument("--references", type=int, default=100, help="pictures (default: 100)")
    each.add_argument("--by", default="max", choices=("max", "mean"), help="default: max")
    each.add_argument("--no-scores", action="store_true", help="skip the embedder")
    seen: set[str] = set()
    for method in METHODS.values():
        hints = get_type_hints(method.Params)
        for each_field in fields(method.Params):
            if each_field.name in seen:
                continue
            seen.add(each_field.name)
            each.add_argument(
                f"--{each_field.name.replace('_', '-')}",
                dest=f"param_{each_field.name}",
                type=hints[each_field.name],
                default=None,
                help=f"{each_field.metadata['help']} (default: {each_field.default!r})",
            )


if __name__ == "__main__":
    raise SystemExit(main())
