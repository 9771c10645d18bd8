"""Run the benchmarks: every ``benchmarks/NAME.py`` that has a function ``measure``.

``measure(options)`` gives a flat object: names of figures, begun with what they are of and ended
with their unit, and numbers or texts. Each benchmark runs in a process of its own, whose largest
memory is reported as NAME_peak_mib.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from explorer.records import ExplorerError

BAD_INPUT = 2
"""The exit code where a sentence says what a benchmark lacks: a folder, or room on the disk."""
HERE = Path(__file__).resolve().parent


def found() -> dict[str, str]:
    """Names of the benchmarks, with what each measures."""
    names = {}
    for path in sorted(HERE.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "measure" for node in tree.body):
            names[path.stem] = (ast.get_docstring(tree) or "").splitlines()[0]
    return names


def main(argv: list[str] | None = None) -> int:
    names = found()
    args = _parser(names).parse_args(argv)
    chosen = args.only or list(names)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        figures: dict[str, Any] = {}
        if len(chosen) == 1:
            try:
                figures = _measure(chosen[0], args, Path(folder))
            except ExplorerError as error:
                print(f"python -m benchmarks: {error}", file=sys.stderr)
                return BAD_INPUT
        else:
            if not args.pictures:
                from benchmarks.options import DRAWN, draw

                args.pictures = str(draw(Path(folder) / "pictures", DRAWN[args.quick]))
            for name in chosen:
                print(f"{name} ... ", end="", file=sys.stderr, flush=True)
                start = time.monotonic()
                figures |= _apart(name, args)
                print(f"{time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    print(json.dumps(figures) if args.json else _table(figures))
    return int(any(name.endswith("_failed") for name in figures))


def _parser(names: dict[str, str]) -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:12} {what}" for name, what in names.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this machine. docs/performance.md says what each figure means.",
        epilog=f"benchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under five minutes")
    parser.add_argument("--whole", action="store_true", help="sweep all neurons of a layer")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="only these")
    parser.add_argument("--pictures", default="", help="a folder of pictures (default: drawn ones)")
    parser.add_argument("--peer", default="", help="a Python that has zennit-crp, for its columns")
    return parser


def _apart(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one benchmark, run by itself; of one that fails, its exit code."""
    command = [sys.executable, "-m", "benchmarks", "--only", name, "--json"]
    command += ["--pictures", args.pictures, "--peer", args.peer, *["--quick"] * args.quick]
    command += ["--whole"] * args.whole
    run = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        return {f"{name}_failed": run.returncode}
    figures: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return figures


def _measure(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from benchmarks.options import DRAWN, Options, draw

    pictures = Path(args.pictures).resolve() if args.pictures else None
    pictures = pictures or draw(folder / "pictures", DRAWN[args.quick])
    start = time.monotonic()
    module = importlib.import_module(f"benchmarks.{name}")
    options = Options(args.quick, args.whole, pictures, args.peer, folder)
    figures: dict[str, Any] = module.measure(options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures | {f"{name}_seconds": time.monotonic() - start, f"{name}_peak_mib": peak}


def _table(figures: dict[str, Any]) -> str:
    """One line per figure; the spread of a figure stands behind it."""
    lines = []
    for name, value in figures.items():
        if name.endswith(("_low", "_high")):
            continue
        text = f"{value:,.4g}" if isinstance(value, float) else "-" if value is None else str(value)
        if f"{name}_low" in figures:
            text += f"  ({figures[f'{name}_low']:,.4g} to {figures[f'{name}_high']:,.4g})"
        lines.append(f"{name:42} {text}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
