"""Commands about many neurons of a layer: sweep, evaluate, planted."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from explorer import exports
from explorer.commands.command import Command, Found, add_engine, add_methods, add_references
from explorer.commands.neuron import add_params, figure_format, given_params, write_figure
from explorer.methods.registry import METHODS
from explorer.questions import SplitQuestion, Study
from explorer.records import (
    HALVES,
    JOINS,
    REGIMES,
    BadInput,
    Neuron,
    Planting,
    ReferenceQuery,
    Sweep,
)
from explorer.session import Session

DEFAULT = Study("")


def sweep(args: argparse.Namespace) -> Found:
    session = Session(args)
    question = SplitQuestion(
        Neuron(session.ws, args.layer, 0),
        args.method,
        given_params(args),
        ReferenceQuery(by=args.by, count=args.references),
    )
    channels = _channels(args.channels)
    ask = session.backend
    return _swept(session.wait(lambda: ask.studies.sweep(question, session.asker, channels)))


def evaluate(args: argparse.Namespace) -> Found:
    session = Session(args)
    study = Study(
        layer=args.layer,
        methods=tuple(args.methods),
        neurons=args.neurons,
        ks=tuple(args.ks),
        judges=tuple(args.judges),
        references=ReferenceQuery(by=args.by, count=args.references),
        seed=args.seed,
    )
    ask = session.backend
    found = session.wait(lambda: ask.studies.evaluation(session.ws, study, session.asker))
    return exports.evaluation(found, args.per_neuron)


def planted(args: argparse.Namespace) -> Found:
    target = Path(args.figure) if args.figure else None
    if target is not None:
        figure_format(target)
    session = Session(args)
    asked = Planting(
        layer=args.layer,
        pairs=args.pairs,
        methods=tuple(args.methods),
        lowers=tuple(args.lower),
        regimes=tuple(args.regime),
        groups=tuple(args.groups),
        mixes=tuple(args.mix),
        join=args.join,
        judge=args.judge,
        references=ReferenceQuery(count=args.references),
        seed=args.seed,
        half=args.half,
    )
    ask = session.backend
    found = session.wait(lambda: ask.studies.planted(session.ws, asked, session.asker))
    printed = exports.planted(found, args.per_neuron)
    if target is None:
        return printed
    recipe = {"figure": "planted", "workspace": session.ws, **asdict(asked)}
    write_figure(session, recipe, target)
    return printed | {"figure": str(target)}


def _channels(text: str) -> tuple[int, int] | None:
    """``A-B``, or ``A`` for one channel; all where empty."""
    if not text:
        return None
    parts = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text, re.ASCII)
    if parts is None:
        raise BadInput(f"'{text}' is no range of channels: write A-B, such as 0-63.")
    return int(parts[1]), int(parts[2] or parts[1])


def _swept(found: Sweep) -> dict[str, Any]:
    alive = found.k[found.k >= 0]
    values, counts = np.unique(alive, return_counts=True)
    return {
        "layer": found.layer,
        "method": found.method,
        "version": found.version,
        "params": found.params,
        "references": asdict(found.references),
        "channels": found.channels,
        "k": found.k,
        "silhouette": found.silhouette,
        "stability": found.stability,
        "dead": int((found.k < 0).sum()),
        "histogram": {str(k): int(n) for k, n in zip(values, counts, strict=True)},
        "mean_k": float(alive.mean()) if alive.size else None,
        "two_or_more": float((alive >= 2).mean()) if alive.size else None,
        "seconds": found.seconds,
    }


def _sweep_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layer")
    parser.add_argument("--method", default="pure", help=f"one of {', '.join(METHODS)}")
    parser.add_argument("--channels", default="", metavar="A-B", help="default: all")
    add_references(parser)
    add_engine(parser)
    add_params(parser)


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layer")
    add_methods(parser, DEFAULT.methods)
    parser.add_argument("--neurons", type=int, default=100, help="living neurons (default: 100)")
    parser.add_argument("--ks", type=int, nargs="+", default=DEFAULT.ks, help="default: 2 3 4 5")
    parser.add_argument(
        "--judges", nargs="+", default=(), metavar="SPEC", help="embedders (default: --embedder)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--per-neuron", action="store_true", help="also the values of each neuron")
    add_engine(parser)
    add_references(parser)


def _planted_options(parser: argparse.ArgumentParser) -> None:
    asked = Planting("")
    parser.add_argument("layer")
    parser.add_argument("--pairs", type=int, default=asked.pairs, help="of each kind")
    add_methods(parser, asked.methods)
    parser.add_argument(
        "--lower", nargs="+", default=asked.lowers, metavar="L", help="lower layers to attribute to"
    )
    parser.add_argument("--regime", nargs="+", default=asked.regimes, choices=REGIMES)
    parser.add_argument(
        "--groups", nargs="+", type=int, default=asked.groups, help="source channels (default: 2)"
    )
    parser.add_argument(
        "--mix", nargs="+", type=float, default=asked.mixes, metavar="R", help="0 to 1 (default: 1)"
    )
    parser.add_argument("--join", default=asked.join, choices=JOINS, help="they are rectified")
    parser.add_argument(
        "--judge", default="", metavar="SPEC", help="of distances (default: --embedder)"
    )
    parser.add_argument("--references", type=int, default=100, help="pictures (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of what is planted (default: 0)")
    parser.add_argument("--half", default=asked.half, choices=("all", *HALVES))
    parser.add_argument("--per-neuron", action="store_true", help="also the values of each channel")
    parser.add_argument(
        "--figure", default="", metavar="FILE", help="draw it: a .pdf, .svg or .png file"
    )


COMMANDS = (
    Command("sweep", "split many neurons of a layer; resumable", sweep, _sweep_options),
    Command("evaluate", "compare methods on a sample of neurons", evaluate, _evaluate_options),
    Command("planted", "test methods where the truth is known", planted, _planted_options),
)
