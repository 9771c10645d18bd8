"""The command ``explain``: what a neuron, a virtual neuron or a whole layer means."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from explorer.commands.command import Command, Found
from explorer.commands.neuron import add_params, given_params
from explorer.concepts import lists
from explorer.explanations import LABELS, LIST, POOLS, Concepts, ExplainQuestion
from explorer.methods.linear_explanation import Params
from explorer.methods.registry import METHODS
from explorer.questions import SplitQuestion
from explorer.records import BadInput, Explanation, LayerExplanations, Neuron, RangeAnalysis
from explorer.session import Session

DIVIDING = ("pure", "activations", "concept_vectors", "random")
"""Methods of the split test where none is named: those that can assign every picture."""


def explain(args: argparse.Namespace) -> Found:
    if args.split_test is not None:
        return _split_test(args)
    if ":" in args.target and args.target.rpartition(":")[2].isdigit():
        return _ranges(args) if args.ranges else _neuron(args)
    if args.virtual is not None or args.ranges or args.terms or args.ablation:
        raise BadInput(
            "--virtual, --ranges, --terms and --ablation are about one neuron: give LAYER:CHANNEL."
        )
    return _layer(args)


def _neuron(args: argparse.Namespace) -> Found:
    session = Session(args)
    neuron = Neuron.parse(session.ws, args.target)
    split = None
    if args.virtual is not None:
        split = SplitQuestion(neuron, args.method, given_params(args))
    question = ExplainQuestion(
        neuron,
        _concepts(args),
        args.pool,
        _params(args),
        split,
        -1 if args.virtual is None else args.virtual,
        lists.read("\n".join(args.terms)) if args.terms else (),
        args.simulator,
    )
    ask = session.backend.explanations
    found = session.wait(lambda: ask.explanation(question, session.asker))
    if not args.ablation:
        return _described(found)
    kept = session.wait(lambda: ask.ablation(question, session.asker))
    return _described(found) | {"ablation": kept.score}


def _described(found: Explanation) -> dict[str, Any]:
    return {
        "neuron": found.neuron.address,
        "virtual": None if found.virtual < 0 else found.virtual,
        "method": found.method,
        "pool": found.pool,
        "terms": [{"concept": name, "weight": weight} for name, weight in found.terms],
        "bias": found.bias,
        "test_correlation": found.test.value,
        "test_low": found.test.low,
        "test_high": found.test.high,
        "null_correlation": found.null,
        "null_sd": found.null_sd,
        "validation_correlation": found.validation,
        "single_concept": found.single[0],
        "single_correlation": found.single[1],
        "frequent_concept": found.frequent[0],
        "frequent_correlation": found.frequent[1],
        "n_train": found.pictures[0],
        "n_validation": found.pictures[1],
        "n_test": found.test.n,
        "left_out": found.left_out,
        "concepts": found.mode,
        "considered": found.considered,
        "embedder": found.embedder,
        "simulator": found.simulator,
        "notice": found.notice,
    }


def _layer(args: argparse.Namespace) -> Found:
    session = Session(args)
    ask, concepts, params = session.backend.explanations, _concepts(args), _params(args)
    if args.simulator:
        raise BadInput("--simulator is about one neuron: give LAYER:CHANNEL.")
    channels = _channels(args, session)
    found = session.wait(
        lambda: ask.layer(
            session.ws, args.target, channels, concepts, params, session.asker, args.pool
        )
    )
    return _summary(found) | {"neurons": _rows(found)}


def _summary(found: LayerExplanations) -> dict[str, Any]:
    summary: dict[str, Any] = {"layer": found.layer, "pool": found.pool}
    lengths = np.array([len(terms) for terms in found.terms])
    for name, values in (
        ("test_correlation", found.test),
        ("null_correlation", found.null),
        ("single_correlation", found.single),
        ("frequent_correlation", found.frequent),
        ("length", lengths),
    ):
        summary[name] = float(np.mean(values))
        several = len(values) > 1
        error = np.std(values, ddof=1) / np.sqrt(len(values)) if several else np.nan
        summary[f"{name}_se"] = float(error)
    made = found.concepts
    return summary | {
        "n": len(found.channels),
        "dead": found.dead,
        "n_train": made.pictures[0],
        "n_validation": made.pictures[1],
        "n_test": made.pictures[2],
        "concepts": made.mode,
        "considered": len(made.names),
        "given": made.given,
        "larger_kinds": made.source,
        "scale": made.scale,
        "offset": made.offset,
        "fitted": made.fitted,
        "embedder": made.embedder,
        "seconds": found.seconds,
        "notice": found.notice,
    }


def _rows(found: LayerExplanations) -> list[dict[str, Any]]:
    return [
        {
            "channel": int(channel),
            "test_correlation": float(found.test[at]),
            "null_correlation": float(found.null[at]),
            "single_correlation": float(found.single[at]),
            "frequent_correlation": float(found.frequent[at]),
            "length": len(found.terms[at]),
            "explanation": " + ".join(f"{w:.2g} {name}" for name, w in found.terms[at]),
            "terms": [{"concept": name, "weight": weight} for name, weight in found.terms[at]],
            "bias": float(found.bias[at]),
            "single_concept": found.singles[at],
        }
        for at, channel in enumerate(found.channels)
    ]


def _ranges(args: argparse.Namespace) -> Found:
    session = Session(args)
    neuron, concepts = Neuron.parse(session.ws, args.target), _concepts(args)
    ask = session.backend.explanations
    found = session.wait(lambda: ask.ranges(neuron, concepts, session.asker, args.pool))
    return _ranged(found)


def _ranged(found: RangeAnalysis) -> dict[str, Any]:
    steps = zip(found.edges[:-1], found.edges[1:], found.counts, found.share, found.concepts,
                strict=True)  # fmt: skip
    return {
        "neuron": found.neuron.address,
        "pool": found.pool,
        "ranges": [
            {
                "low": float(low),
                "high": float(high),
                "pictures": int(count),
                "effect": float(share),
                "wins": ", ".join(name for name, _ in names),
                "concepts": [{"concept": name, "more": more} for name, more in names],
            }
            for low, high, count, share, names in steps
        ],
        "top": [
            {"quantile": float(part), "effect": float(share)}
            for part, share in zip(found.quantiles, found.top, strict=True)
        ],
        "measured": found.measured,
        "notice": found.notice,
    }


def _split_test(args: argparse.Namespace) -> Found:
    session = Session(args)
    concepts, channels = _concepts(args), _channels(args, session)
    count = {"k": args.param_k or 2}
    methods = {
        name: {} if name == "concept_vectors" else count for name in args.split_test or DIVIDING
    }
    ask = session.backend.explanations
    found = session.wait(
        lambda: ask.split_test(
            session.ws,
            args.target,
            channels,
            methods,
            concepts,
            session.asker,
            args.length or 10,
            args.pictures,
        )
    )
    return {
        "layer": found.layer,
        "length": found.length,
        "pictures": found.pictures,
        "neurons": len(found.channels),
        "rows": [asdict(row) for row in found.rows],
        "concepts": found.concepts.mode,
        "embedder": found.concepts.embedder,
        "seconds": found.seconds,
        "notice": found.notice,
    }


def _concepts(args: argparse.Namespace) -> Concepts:
    if args.concepts in (LABELS, LIST):
        return Concepts(args.concepts)
    return Concepts(LIST, lists.read_file(Path(args.concepts)))


def _params(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters of the search that were given."""
    every = {each.name: getattr(args, each.name) for each in fields(Params)}
    return {name: value for name, value in every.items() if value is not None}


def _channels(args: argparse.Namespace, session: Session) -> tuple[int, ...]:
    """The channels of ``--channels A-B``, or of ``--neurons N`` drawn by lot from the living
    ones; none: all."""
    if args.channels:
        found = re.fullmatch(r"(\d{1,7})-(\d{1,7})", args.channels)
        if found is None or int(found[1]) > int(found[2]):
            raise BadInput(f"'{args.channels}' is no range of channels: write A-B, such as 0-63.")
        return tuple(range(int(found[1]), int(found[2]) + 1))
    if args.neurons is None:
        return ()
    ask = session.backend
    table = session.wait(lambda: ask.table(session.ws, args.target, session.asker))
    alive = np.flatnonzero(table.alive)
    if not 1 <= args.neurons <= len(alive):
        raise BadInput(f"Draw 1 to {len(alive)} neurons: so many are alive in {args.target}.")
    drawn = np.random.default_rng(0).choice(alive, args.neurons, replace=False)
    return tuple(sorted(map(int, drawn)))


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="LAYER:CHANNEL, or LAYER for many neurons")
    parser.add_argument(
        "--concepts",
        default=LIST,
        metavar="labels|list|FILE",
        help="the pictures' labels, the list that comes along, or a text file (default: list)",
    )
    parser.add_argument("--pool", default="mean", choices=POOLS, help="default: mean")
    parser.add_argument("--terms", nargs="+", default=[], help="score these concepts instead")
    parser.add_argument("--simulator", default="", help="an embedder that judges the test pictures")
    parser.add_argument("--ranges", action="store_true", help="where in its range it matters")
    parser.add_argument("--ablation", action="store_true", help="score what it keeps of the effect")
    parser.add_argument("--channels", default="", metavar="A-B", help="of a layer; default: all")
    parser.add_argument("--neurons", type=int, default=None, metavar="N", help="so many, by lot")
    parser.add_argument(
        "--split-test",
        nargs="*",
        default=None,
        choices=DIVIDING,
        metavar="METHOD",
        help=f"whole neurons against their parts, by {', '.join(DIVIDING)} (none named: all)",
    )
    parser.add_argument(
        "--pictures", type=int, default=400, help="assigned at most per neuron (default: 400)"
    )
    parser.add_argument("--virtual", type=int, default=None, metavar="V", help="0, 1, ...")
    parser.add_argument("--method", default="pure", help=f"of --virtual: {', '.join(METHODS)}")
    hints = get_type_hints(Params)
    for each in fields(Params):
        about = f"{each.metadata['help']} (default: {each.default})"
        flag = f"--{each.name}"
        if hints[each.name] is bool:
            parser.add_argument(flag, action="store_const", const=True, default=None, help=about)
        else:
            parser.add_argument(flag, type=hints[each.name], default=None, help=about)
    add_params(parser)


COMMANDS = (
    Command("explain", "what a neuron means, as a weighted sum of concepts", explain, _options),
)
