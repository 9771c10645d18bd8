"""The command ``explain``: what a neuron, a virtual neuron or a whole layer means."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from explorer.commands import explained
from explorer.commands.command import Command, Found
from explorer.commands.neuron import add_params, given_params
from explorer.concepts import lists
from explorer.explaining import DRAWN, LABELS, LIST, MEASURED, POOLS, Concepts, ExplainQuestion
from explorer.methods.linear_explanation import Params
from explorer.methods.registry import METHODS
from explorer.networks.dividing import RULES
from explorer.operations import RULE, Operation, labels_named
from explorer.questions import SplitQuestion
from explorer.records import BadInput, Neuron
from explorer.session import Session

DIVIDING = ("pure", "activations", "concept_vectors", "random")
"""Methods of the split test where none is named: those that assign a picture quickly."""


def explain(args: argparse.Namespace) -> Found:
    if args.split_test is not None:
        return _split_test(args)
    if ":" in args.target and args.target.rpartition(":")[2].isdigit():
        return _ranges(args) if args.ranges else _neuron(args)
    if args.virtual is not None or args.part is not None or args.terms or args.ablation:
        raise BadInput(
            "--virtual, --part, --terms and --ablation are about one neuron: give LAYER:CHANNEL."
        )
    return _shares(args) if args.ranges else _layer(args)


def _neuron(args: argparse.Namespace) -> Found:
    session = Session(args)
    neuron = Neuron.parse(session.ws, args.target)
    split = None
    if args.virtual is not None:
        split = SplitQuestion(neuron, args.method, given_params(args))
    divided = () if args.part is None else (_operation(args, neuron, session),)
    if split and divided:
        raise BadInput("--virtual and --part are two signals: give one of them.")
    question = ExplainQuestion(
        neuron,
        _concepts(args),
        args.pool,
        _params(args),
        split,
        next((each for each in (args.virtual, args.part) if each is not None), -1),
        lists.read("\n".join(args.terms)) if args.terms else (),
        args.simulator,
        divided,
    )
    ask = session.backend.explanations
    found = session.wait(lambda: ask.explanation(question, session.asker))
    if not args.ablation:
        return explained.neuron_of(found)
    kept = session.wait(lambda: ask.ablation(question, session.asker))
    return explained.neuron_of(found) | explained.ablation_of(kept)


def _operation(args: argparse.Namespace, neuron: Neuron, session: Session) -> Operation:
    """The division whose part is explained: among labels, or by a split."""
    how = {"rule": args.rule, "rho": args.rho}
    if args.classes:
        images = session.wait(lambda: session.backend.images(session.ws, session.asker))
        groups = tuple(labels_named(images, text) for text in args.classes)
        return Operation(neuron.address, groups, **how)
    given = given_params(args)
    if set(given) - {"k"}:
        raise BadInput("A part by a split takes --method and --k, and no other parameter of it.")
    return Operation(neuron.address, method=args.method, k=given.get("k", 0), **how)


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
    return explained.layer_of(found)


def _ranges(args: argparse.Namespace) -> Found:
    session = Session(args)
    neuron, concepts = Neuron.parse(session.ws, args.target), _concepts(args)
    ask = session.backend.explanations
    found = session.wait(lambda: ask.ranges(neuron, concepts, session.asker, args.pool))
    return explained.ranges_of(found)


def _shares(args: argparse.Namespace) -> Found:
    session = Session(args)
    channels, ask = _channels(args, session), session.backend.explanations
    found = session.wait(
        lambda: ask.shares(
            session.ws, args.target, channels, session.asker, args.pool, args.pictures or MEASURED
        )
    )
    return explained.shares_of(found)


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
            args.pictures or DRAWN,
        )
    )
    return explained.split_test_of(found)


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
        choices=list(METHODS),
        metavar="METHOD",
        help=f"whole neurons against their parts (none named: {', '.join(DIVIDING)})",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=None,
        help=f"drawn for --split-test (default: {DRAWN}) or --ranges of a layer ({MEASURED})",
    )
    _parts(parser)
    hints = get_type_hints(Params)
    for each in fields(Params):
        about = f"{each.metadata['help']} (default: {each.default})"
        flag = f"--{each.name}"
        if hints[each.name] is bool:
            parser.add_argument(flag, action="store_const", const=True, default=None, help=about)
        else:
            parser.add_argument(flag, type=hints[each.name], default=None, help=about)
    add_params(parser)


def _parts(parser: argparse.ArgumentParser) -> None:
    """Options of what a neuron is divided into."""
    parser.add_argument("--virtual", type=int, default=None, metavar="V", help="0, 1, ...")
    parser.add_argument(
        "--part", type=int, default=None, metavar="V", help="of the divided channel"
    )
    parser.add_argument("--classes", nargs="+", metavar="A", help="of --part: labels to divide by")
    parser.add_argument("--rule", default=RULE, choices=RULES, help="of --part")
    parser.add_argument("--rho", type=float, default=0.0, help="of --part (default: 0, chosen)")
    methods = ", ".join(METHODS)
    parser.add_argument("--method", default="pure", help=f"of --virtual and --part: {methods}")


COMMANDS = (
    Command("explain", "what a neuron means, as a weighted sum of concepts", explain, _options),
)
