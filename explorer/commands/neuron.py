"""Commands about one neuron: split, figure."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from explorer.commands.command import Command, Found, add_references
from explorer.figures import MEDIA, parse
from explorer.methods.registry import METHODS, method_named
from explorer.questions import SplitQuestion
from explorer.records import (
    Alignment,
    BadInput,
    ImageSet,
    Neuron,
    ReferenceQuery,
    Split,
    Unavailable,
)
from explorer.session import Session

CIRCUIT_CHANNELS = 10
LARGEST_RECIPE = 100_000


def split(args: argparse.Namespace) -> Found:
    session = Session(args)
    ask = session.backend
    question = SplitQuestion(
        Neuron.parse(session.ws, args.neuron),
        args.method,
        given_params(args),
        ReferenceQuery(by=args.by, count=args.references),
    )
    answer = session.wait(lambda: ask.split(question, session.asker))
    images = session.wait(lambda: ask.images(session.ws, session.asker))
    found = _described(answer, images) | {"notice": _shortfall(answer, args.references)}
    if not args.no_scores:
        scores = session.wait(lambda: ask.alignment(question, session.asker))
        notice = " ".join(each for each in (found["notice"], scores.notice) if each)
        found |= {"embedder": scores.title, "notice": notice, "scores": _scores(scores)}
    if args.rank:
        found["ranking"] = [
            _ranked(session, question, virtual, args.rank, images) for virtual in range(answer.k)
        ]
    return found


def _shortfall(split: Split, wanted: int) -> str:
    """What to say when there are fewer references than were asked for."""
    found = len(split.references.index)
    if found >= wanted:
        return ""
    return (
        f"{wanted} references were asked for and {found} are used: the neuron fires on no more "
        "photographs of this image set."
    )


def _ranked(
    session: Session, question: SplitQuestion, virtual: int, count: int, images: ImageSet
) -> dict[str, Any]:
    """All pictures along a virtual neuron's direction, the highest first."""
    ask = session.backend
    found = session.wait(lambda: ask.studies.ranking(question, virtual, count, session.asker))
    return {
        "virtual": virtual,
        "mean": found.mean,
        "sd": found.sd,
        "paths": [images.paths[int(image)] for image in found.index],
        "values": found.value,
    }


def figure(args: argparse.Namespace) -> Found:
    target = Path(args.output)
    figure_format(target)
    recipe = parse(_read(Path(args.recipe)))
    if not (args.workspace or args.network or args.images):
        args.workspace = recipe["workspace"]
    session = Session(args)
    recipe["workspace"] = session.ws
    size = write_figure(session, recipe, target)
    return {"file": str(target), "bytes": size, "recipe": json.dumps(recipe)}


def figure_format(target: Path) -> str:
    """The format of a figure file by its name's end; BadInput where it is none."""
    form = target.suffix.removeprefix(".").lower()
    if form not in MEDIA:
        raise BadInput(f"{target} is no figure file: end its name with .{', .'.join(MEDIA)}.")
    return form


def write_figure(session: Session, recipe: Mapping[str, Any], target: Path) -> int:
    """Draw a recipe into a file; how many bytes it has."""
    form = figure_format(target)
    drawn = session.wait(lambda: session.backend.figure(recipe, form, session.asker))
    try:
        target.write_bytes(drawn.data.tobytes())
    except OSError as error:
        raise Unavailable(f"{target} cannot be written: {error.strerror}.") from error
    return int(drawn.data.size)


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(LARGEST_RECIPE)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as a recipe: give a JSON text file.") from error


def given_params(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters given on the command line, for the method that was chosen."""
    given = {
        name.removeprefix("param_"): value
        for name, value in vars(args).items()
        if name.startswith("param_") and value is not None
    }
    known = {each.name for each in fields(method_named(args.method).Params)}
    for name in given:
        if name not in known:
            listed = ", ".join(f"--{each.replace('_', '-')}" for each in sorted(known))
            raise BadInput(f"Method {args.method} has no --{name.replace('_', '-')}: use {listed}.")
    return given


def _described(split: Split, images: ImageSet) -> dict[str, Any]:
    return {
        "neuron": split.neuron.address,
        "method": split.method,
        "version": split.version,
        "params": split.params,
        "seed": split.seed,
        "k": split.k,
        "labels": split.labels,
        "paths": [images.paths[int(image)] for image in split.references.index],
        "values": split.references.value,
        "sizes": split.sizes,
        "silhouette": split.scores.get("silhouette"),
        "null_silhouette": split.scores.get("null_silhouette"),
        "stability": split.scores.get("stability"),
        "circuits": [_circuit(split, virtual) for virtual in range(split.k)],
        "provenance": split.provenance,
    }


def _circuit(split: Split, virtual: int) -> dict[str, Any]:
    """What a virtual neuron's centroid is made of: its largest entries."""
    centroid = split.centroid[virtual]
    best = np.argsort(-centroid, kind="stable")[:CIRCUIT_CHANNELS]
    shares = [{"channel": int(channel), "share": float(centroid[channel])} for channel in best]
    return {"virtual": virtual, "space": split.space, "channels": shares}


def _scores(found: Alignment) -> dict[str, Any]:
    """Each score with its null; ``overall`` has none."""
    judged = ("intra", "inter", "gap", "correlation")
    return {name: asdict(getattr(found, name)) for name in judged} | {"overall": found.overall}


def _split_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("neuron", help="LAYER:CHANNEL")
    parser.add_argument("--method", default="pure", help=f"one of {', '.join(METHODS)}")
    add_references(parser)
    parser.add_argument("--no-scores", action="store_true", help="skip the embedder")
    parser.add_argument(
        "--rank", type=int, default=0, metavar="N", help="also the N pictures highest along each"
    )
    add_params(parser)


def add_params(parser: argparse.ArgumentParser) -> None:
    """One option per parameter of any method; those of other methods are refused when read."""
    users: dict[str, list[str]] = {}
    for method in METHODS.values():
        for each in fields(method.Params):
            users.setdefault(each.name, []).append(method.name)
    for name, methods in users.items():
        kind = METHODS[methods[0]].Params
        each = next(each for each in fields(kind) if each.name == name)
        given = get_type_hints(kind)[name]
        # The workspace has an option --embedder of its own; a method's is told apart.
        flag = "--method-embedder" if name == "embedder" else f"--{name.replace('_', '-')}"
        how = {"action": argparse.BooleanOptionalAction} if given is bool else {"type": given}
        parser.add_argument(
            flag,
            dest=f"param_{name}",
            default=None,
            help=f"{each.metadata['help']} (of {', '.join(methods)}; default: {each.default!r})",
            **how,
        )


def _figure_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a JSON file, as the page offers it")
    parser.add_argument("-o", "--output", required=True, help="a .pdf, .svg or .png file")


COMMANDS = (
    Command("split", "split one neuron into virtual neurons", split, _split_options),
    Command("figure", "draw a figure from its recipe", figure, _figure_options),
)
