"""Commands about known contents: toy makes a world and its networks, truth judges methods by it."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from explorer.commands.command import Command, Found, add_methods, add_references, progress
from explorer.images.toy_world import World, write
from explorer.questions import TruthStudy
from explorer.records import BadInput, ReferenceQuery, Truth, Workspace
from explorer.session import Session

DEFAULT = TruthStudy("")
CONCEPTS, CHANNELS = 24, 10
PICTURES, TRAINING, EPOCHS = 2880, 4800, 20
FEWEST_PICTURES, FEWEST_TRAINING = 24, 64


def toy(args: argparse.Namespace) -> Found:
    """Draw a world and train two networks on it: one too narrow for its concepts, and a control
    with a channel for each."""
    world = World(args.concepts, args.seed)
    folder = Path(args.output).expanduser().resolve()
    _check(args, folder)
    scratch = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".toy-", dir=folder.parent))
        write(world, scratch / "made" / "pictures", args.pictures, progress)
        networks = _train(world, scratch / "made", args)
        _configure(scratch / "made", folder, networks)
        (scratch / "made").replace(folder)
    except OSError as error:
        raise BadInput(
            f"The toy world cannot be written to {folder} ({error.strerror or error}): name a "
            "folder that does not exist, where you may write."
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return {
        "folder": str(folder),
        "config": str(folder / "explorer.toml"),
        "concepts": world.names,
        "pictures": args.pictures,
        "networks": networks,
    }


def _check(args: argparse.Namespace, folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is there already: name a folder that is new or empty.")
    if args.pictures < FEWEST_PICTURES or args.training < FEWEST_TRAINING or args.epochs < 1:
        raise BadInput(
            f"A toy world needs {FEWEST_PICTURES} pictures, {FEWEST_TRAINING} scenes to train on "
            "and an epoch, or more."
        )
    if args.seed < 0:
        raise BadInput(f"The seed is a number from 0 on, not {args.seed}.")


def _train(world: World, folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train both networks and save their weights."""
    from explorer.compute import toy_training

    taught = toy_training.lesson(world, "train", args.training, progress)
    asked = toy_training.lesson(world, "show", args.pictures, progress)
    found = []
    for name, size in (("toy", args.channels), ("toy-control", args.concepts)):
        start = time.monotonic()
        control = name == "toy-control"
        network = toy_training.train(size, taught, args.epochs, args.seed, progress, control)
        seconds = time.monotonic() - start
        toy_training.save(network, folder / f"{name}.safetensors")
        right = toy_training.accuracy(network, asked)
        found.append({"workspace": name, "channels": size, "accuracy": right, "seconds": seconds})
    return found


def _configure(made: Path, folder: Path, networks: list[dict[str, Any]]) -> None:
    """Write the explorer.toml with both workspaces; the control judges the pictures of both."""
    control = networks[1]
    judge = f"network:toy:{control['channels']}@{folder / control['workspace']}.safetensors"
    tables = []
    for each in networks:
        name = each["workspace"]
        workspace = Workspace(
            name=name,
            network=f"toy:{each['channels']}",
            weights=str(folder / f"{name}.safetensors"),
            images=str(folder / "pictures"),
            embedder=judge,
        )
        texts = {key: value for key, value in asdict(workspace).items() if key != "layers"}
        lines = [f"{key} = {json.dumps(value)}" for key, value in texts.items()]
        tables.append("\n".join(["[[workspace]]", *lines, ""]))
    (made / "explorer.toml").write_text("\n".join(tables), "utf-8")


def truth(args: argparse.Namespace) -> Found:
    session = Session(args)
    study = TruthStudy(
        layer=args.layer,
        methods=tuple(args.methods),
        neurons=args.neurons,
        share=args.share,
        references=ReferenceQuery(by=args.by, count=args.references),
        seed=args.seed,
    )
    ask = session.backend
    return _judged(session.wait(lambda: ask.studies.truth(session.ws, study, session.asker)))


def _judged(found: Truth) -> dict[str, Any]:
    numbers, counts = np.unique(found.concepts, return_counts=True)
    return {
        "layer": found.layer,
        "share": found.share,
        "references": asdict(found.references),
        "neurons": len(found.channels),
        "by_concepts": {str(n): int(c) for n, c in zip(numbers, counts, strict=True)},
        "polysemantic": float((found.concepts > 1).mean()),
        "rows": [asdict(row) for row in found.rows],
        "auto": [
            {"method": each.method, "concepts": int(concepts)}
            | {str(k): int(n) for k, n in enumerate(row, 1)}
            for each in found.confusions
            for concepts, row in zip(each.concepts, each.counts, strict=True)
        ],
        "channels": [_channel(found, at) for at in range(len(found.channels))],
        "missing": [{"name": name, "reason": why} for name, why in found.missing],
        "notice": found.notice,
        "seconds": found.seconds,
    }


def _channel(found: Truth, at: int) -> dict[str, Any]:
    shares = found.drives[at]
    order = [each for each in np.argsort(-shares, kind="stable") if shares[each] > 0]
    return {
        "channel": int(found.channels[at]),
        "concepts": int(found.concepts[at]),
        "driven_by": ", ".join(f"{found.names[each]} {shares[each]:.2f}" for each in order[:4]),
        "shares": {found.names[each]: float(shares[each]) for each in order},
        "ari": [
            {"method": row.method, "k": row.k, "ari": float(value), "parts": int(parts)}
            for row, value, parts in zip(
                found.rows, found.ari[:, at], found.chosen[:, at], strict=True
            )
        ],
    }


def _toy_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", required=True, help="a folder that is new or empty")
    for name, default, about in (
        ("concepts", CONCEPTS, "forms in the world"),
        ("channels", CHANNELS, "of the narrow layer"),
        ("pictures", PICTURES, "to browse, none of them trained on"),
        ("training", TRAINING, "scenes to train on"),
        ("epochs", EPOCHS, "how often each is seen"),
        ("seed", 0, "of scenes and training"),
    ):
        about = f"{about} (default: {default})"
        parser.add_argument(f"--{name}", type=int, default=default, help=about)


def _truth_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layer")
    add_methods(parser, DEFAULT.methods)
    parser.add_argument("--neurons", type=int, default=100, help="living neurons (default: 100)")
    about = "of the references that a concept must drive to count (default: 0.2)"
    parser.add_argument("--share", type=float, default=DEFAULT.share, help=about)
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    add_references(parser)


COMMANDS = (
    Command("toy", "draw a world of known concepts and train networks on it", toy, _toy_options,
            workspace=False),
    Command("truth", "judge methods by what is known to be in the pictures", truth, _truth_options),
)  # fmt: skip
