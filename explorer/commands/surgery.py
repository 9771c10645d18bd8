"""Commands of channel surgery: polysemantic, surgery."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from explorer.commands.command import Command, Found
from explorer.networks.dividing import RULES
from explorer.operations import PICTURES, RULE, Operation, Wanted, labels_named, renamed
from explorer.records import (
    BadInput,
    EditedNetwork,
    ImageSet,
    Incision,
    PartsAlignment,
    Unavailable,
)
from explorer.session import Session


def polysemantic(args: argparse.Namespace) -> Found:
    session = Session(args)
    wanted = Wanted(args.by, args.tau, args.share, args.gamma, args.least, args.derive)
    ask = session.backend.surgery
    found = session.wait(lambda: ask.candidates(session.ws, args.layer, wanted, session.asker))
    assert found is not None, "it was asked to start"
    images = session.wait(lambda: session.backend.images(session.ws, session.asker))
    rows = [
        {
            "channel": int(channel),
            "groups": [found.names[group] for group in groups],
            "cosine": float(cosine),
            "pictures": [
                [images.paths[image] for image in group if image >= 0] for group in pictures
            ],
        }
        for channel, groups, cosine, pictures in zip(
            found.channel, found.groups, found.cosine, found.pictures, strict=True
        )
    ]
    return {
        "layer": found.maker.path,
        "kind": found.maker.kind,
        "by": found.by,
        "channels": len(np.unique(found.channel)),
        "looked": found.looked,
        "how": found.how,
        "seconds": found.seconds,
        "candidates": rows,
        "notice": found.advice,
    }


def surgery(args: argparse.Namespace) -> Found:
    target = _target(args.output)
    session = Session(args)
    ask = session.backend
    images = session.wait(lambda: ask.images(session.ws, session.asker))
    listed = [_operation(args, neuron, images) for neuron in args.neurons]
    found = session.wait(
        lambda: ask.surgery.report(session.ws, listed, session.asker, args.pictures)
    )
    assert found is not None, "it was asked to start"
    network = session.wait(lambda: ask.surgery.edited(session.ws, listed, session.asker))
    _write(target, network)
    incisions = [
        _described(each, aligned, images)
        for each, aligned in zip(found.incisions, found.alignments, strict=True)
    ]
    names = ("difference64", "scale", "parameters", "multiplications", "seconds")
    return (
        incisions[0]
        | {
            "max_abs_logit_difference": found.difference,
            "max_abs_logit_difference_float64": found.difference64,
            "top1_changed": found.changed,
            "pictures": found.pictures,
            "accuracy": {"before": found.accuracy[0], "after": found.accuracy[1]},
        }
        | {name: getattr(found, name) for name in names[1:]}
        | {"edits": incisions, "file": str(target), "weights": str(_weights(target))}
    )


def _operation(args: argparse.Namespace, neuron: str, images: ImageSet) -> Operation:
    if args.classes:
        classes = tuple(labels_named(images, text) for text in args.classes)
        return Operation(neuron, classes, rule=args.rule, rho=args.rho)
    return Operation(
        neuron,
        method=args.split,
        k=args.k,
        references=args.references,
        rule=args.rule,
        rho=args.rho,
    )


def _target(output: str) -> Path:
    """The JSON file to write; the weights go beside it."""
    path = Path(output)
    if path.suffix == ".safetensors":
        path = path.with_suffix(".json")
    if path.suffix != ".json" or not _plain(path.stem):
        raise BadInput(
            f"'{output}' is no file for an edited network: end its name with .json (letters, "
            "digits, . _ - before it); the weights go beside it."
        )
    if not path.parent.is_dir():
        raise BadInput(f"The folder {path.parent} does not exist: create it first.")
    return path


def _plain(stem: str) -> bool:
    return all((letter.isalnum() and letter.isascii()) or letter in "._-" for letter in stem)


def _weights(target: Path) -> Path:
    return target.with_suffix(".safetensors")


def _write(target: Path, network: EditedNetwork) -> None:
    try:
        _weights(target).write_bytes(network.weights.tobytes())
        target.write_text(renamed(network, _weights(target).name), encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"{target} cannot be written: {error.strerror}.") from error


def _described(incision: Incision, aligned: PartsAlignment, images: ImageSet) -> dict[str, Any]:
    edit = incision.edit
    parts = ["original", *edit.concepts]
    return {
        "layer": edit.layer,
        "channel": edit.channel,
        "concepts": edit.concepts,
        "rule": edit.rule,
        "rho": edit.rho,
        "inputs": {
            name: int((edit.owner == at).sum())
            for at, name in [*enumerate(edit.concepts), (-1, "shared")]
        },
        "browse": incision.shown,
        "new_channels": incision.places,
        "fractions": incision.fractions,
        "shares": incision.shares,
        "auc": incision.auc,
        "own_part_strongest": incision.correct,
        "misplaced": incision.misplaced,
        "misplaced_null": (len(edit.concepts) - 1) / len(edit.concepts) ** 2,
        "judged_on": incision.judged,
        "top_labels": [
            {
                "part": name,
                "label": images.label_names[label] if label >= 0 else "",
                "purity": float(purity),
            }
            for name, label, purity in zip(parts, incision.label, incision.purity, strict=True)
        ],
        "purity_null": incision.purity_null,
        "alignment": {
            "embedder": aligned.after.embedder,
            "notice": aligned.after.notice,
            "before": aligned.before,
        }
        | {
            name: asdict(getattr(aligned.after, name))
            for name in ("intra", "inter", "gap", "correlation")
        },
    }


def _polysemantic_options(parser: argparse.ArgumentParser) -> None:
    wanted = asdict(Wanted())
    parser.add_argument("layer", help="a browsable layer, or the layer that makes it")
    parser.add_argument("--by", default="classes", choices=("classes", "splits"), help="evidence")
    for name, help in (
        ("tau", "share of positive relevance that makes a channel important for a picture"),
        ("share", "share of a label's pictures that makes a channel important for the label"),
        ("gamma", "cosine of two relevance vectors below which they are unlike"),
    ):
        text = f"{help} (default: {wanted[name]})"
        parser.add_argument(f"--{name}", type=float, default=wanted[name], help=text)
    parser.add_argument("--least", type=int, default=wanted["least"], help="pictures per label")
    parser.add_argument("--derive", type=int, default=wanted["derive"], help="splits to make now")


def _surgery_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("neurons", nargs="+", metavar="LAYER:CHANNEL")
    concepts = parser.add_mutually_exclusive_group(required=True)
    concepts.add_argument("--classes", nargs="+", metavar="A", help="labels; A|B joins two in one")
    concepts.add_argument("--split", default="", metavar="M", help="virtual neurons of a method")
    parser.add_argument("--k", type=int, default=0, help="virtual neurons (default: 0, automatic)")
    parser.add_argument("--references", type=int, default=100, help="pictures that are split")
    parser.add_argument("--rule", default=RULE, choices=RULES, help="default: %(default)s")
    parser.add_argument("--rho", type=float, default=0.0, help="0 to 1 (default: 0, chosen)")
    parser.add_argument(
        "--pictures", type=int, default=PICTURES, help=f"to compare on (default: {PICTURES})"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="a .json file")


COMMANDS = (
    Command(
        "polysemantic",
        "find channels that serve unlike things",
        polysemantic,
        _polysemantic_options,
    ),
    Command("surgery", "divide channels in the weights", surgery, _surgery_options),
)
