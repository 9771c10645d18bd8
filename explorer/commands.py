"""What each command does. A command returns what it found, to print as JSON or as text."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from explorer.methods.registry import method_named
from explorer.questions import SplitQuestion
from explorer.records import (
    Alignment,
    BadInput,
    ImageSet,
    LayerTable,
    Neuron,
    ReferenceQuery,
    Score,
    Split,
    Unavailable,
)
from explorer.session import Fault, Session
from explorer.settings import load_settings

__all__ = ["COMMANDS", "SORTS", "Fault", "plain", "show"]

SORTS = ("max", "mean", "density", "purity", "channel")
CIRCUIT_CHANNELS = 10
LARGEST_RECIPE = 100_000

Found = Mapping[str, Any] | None


def demo(args: argparse.Namespace) -> Found:
    """Fetch and compose the demo pictures."""
    from explorer.images.demo import prepare

    folder = prepare(load_settings().data_dir, _stderr)
    return {"folder": str(folder)}


def layers(args: argparse.Namespace) -> Found:
    """The browsable layers."""
    network = Session(args).network()
    return {"network": network.source, "layers": [asdict(layer) for layer in network.layers]}


def scan(args: argparse.Namespace) -> Found:
    """Scan layers."""
    session = Session(args)
    return asdict(
        session.wait(lambda: session.backend.scan(session.ws, args.layers, session.asker))
    )


def neurons(args: argparse.Namespace) -> Found:
    """The table of a layer, sorted or searched."""
    session = Session(args)
    ask = session.backend
    table = session.wait(lambda: ask.table(session.ws, args.layer, session.asker))
    images = session.wait(lambda: ask.images(session.ws, session.asker))
    found: dict[str, Any] = {"layer": args.layer, "notice": ""}
    score = None
    if args.search:
        search = session.wait(
            lambda: ask.search(session.ws, args.layer, args.search, session.asker)
        )
        found |= {"search": search.text, "embedder": search.embedder, "notice": search.notice}
        score = search.score
    order = _order(table, args.sort, score)[: max(args.limit, 0)]
    found["neurons"] = [_row(table, images, int(channel), score) for channel in order]
    return found


def split(args: argparse.Namespace) -> Found:
    """One split, with its scores."""
    session = Session(args)
    ask = session.backend
    method = method_named(args.method)
    question = SplitQuestion(
        Neuron.parse(session.ws, args.neuron),
        method.name,
        {
            each.name: getattr(args, f"param_{each.name}")
            for each in fields(method.Params)
            if getattr(args, f"param_{each.name}") is not None
        },
        ReferenceQuery(by=args.by, count=args.references),
    )
    answer = session.wait(lambda: ask.split(question, session.asker))
    images = session.wait(lambda: ask.images(session.ws, session.asker))
    found = _split_found(answer, images)
    if not args.no_scores:
        scores = session.wait(lambda: ask.alignment(question, session.asker))
        found |= {"embedder": scores.title, "notice": scores.notice, "scores": _scores(scores)}
    return found


def figure(args: argparse.Namespace) -> Found:
    """Draw a recipe into a file."""
    source, target = Path(args.recipe), Path(args.output)
    form = target.suffix.removeprefix(".").lower()
    if form not in ("pdf", "svg", "png"):
        raise BadInput(f"{target} is no figure file: end its name with .pdf, .svg or .png.")
    try:
        text = source.read_text(encoding="utf-8")
        recipe = json.loads(text[:LARGEST_RECIPE])
    except (OSError, ValueError) as error:
        raise BadInput(f"{source} is not a readable JSON recipe ({error}).") from error
    if not isinstance(recipe, dict):
        raise BadInput(f"{source} is not a recipe: it must hold one JSON object.")
    if not args.workspace and isinstance(recipe.get("workspace"), str):
        args.workspace = recipe["workspace"] if not args.network else ""
    session = Session(args)
    recipe["workspace"] = session.ws
    drawn = session.wait(lambda: session.backend.figure(recipe, form, session.asker))
    try:
        target.write_bytes(drawn.data.tobytes())
    except OSError as error:
        raise Unavailable(f"{target} cannot be written ({error.strerror}).") from error
    return {"file": str(target), "bytes": int(drawn.data.size)}


def cache(args: argparse.Namespace) -> Found:
    """What the cache holds."""
    from explorer.doctor import cached

    return cached(load_settings(), args.prune)


def doctor(args: argparse.Namespace) -> Found:
    """Check this installation."""
    from explorer.doctor import examine

    return examine(load_settings())


def serve(args: argparse.Namespace) -> Found:
    """Start worker and pages; returns when stopped."""
    from explorer.serve import serve as run

    run(load_settings(), args.host, args.port)
    return None


def worker(args: argparse.Namespace) -> Found:
    """Be the worker; returns when stopped."""
    from explorer.worker import main as run

    run(load_settings())
    return None


COMMANDS: dict[str, Callable[[argparse.Namespace], Found]] = {
    command.__name__: command
    for command in (demo, layers, scan, neurons, split, figure, cache, doctor, serve, worker)
}


def plain(value: Any) -> Any:
    """The value as JSON can hold it: arrays as lists, NaN as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def show(command: str, found: Mapping[str, Any]) -> None:
    """Print an answer for a person: rows as a table, everything else as ``name: value``."""
    for name, value in plain(found).items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            _show_rows(value)
        elif isinstance(value, list) and len(value) > 12:
            print(f"{name}: {' '.join(map(str, value[:12]))} … ({len(value)})")
        else:
            print(f"{name}: {value}")


def _show_rows(rows: list[dict[str, Any]]) -> None:
    columns = [name for name, value in rows[0].items() if not isinstance(value, list | dict)]
    cells = [columns, *([_cell(row[name]) for name in columns] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    for row in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _order(table: LayerTable, sort: str, score: np.ndarray | None) -> np.ndarray:
    """Channels, best first: by words where searched, else by the column."""
    if score is not None:
        return np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")
    if sort == "channel":
        return np.arange(len(table.maximum))
    column = table.maximum if sort == "max" else getattr(table, sort)
    return np.argsort(-column, kind="stable")


def _row(
    table: LayerTable, images: ImageSet, channel: int, score: np.ndarray | None
) -> dict[str, Any]:
    label = int(table.label[channel])
    top = int(table.top[channel, 0])
    row = {
        "channel": channel,
        "max": float(table.maximum[channel]),
        "mean": float(table.mean[channel]),
        "density": float(table.density[channel]),
        "alive": bool(table.alive[channel]),
        "label": images.label_names[label] if label >= 0 else "",
        "purity": float(table.purity[channel]),
        "top": images.paths[top] if top >= 0 else "",
    }
    return row if score is None else row | {"score": float(score[channel])}


def _split_found(split: Split, images: ImageSet) -> dict[str, Any]:
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
        "stability": split.scores.get("stability"),
        "null_silhouette": split.scores.get("null_silhouette"),
        "circuits": [_circuit(split, virtual) for virtual in range(split.k)],
        "provenance": split.provenance,
    }


def _circuit(split: Split, virtual: int) -> dict[str, Any]:
    """The lower channels that feed a virtual neuron most, with their shares of relevance."""
    centroid = split.centroid[virtual]
    best = np.argsort(-centroid, kind="stable")[:CIRCUIT_CHANNELS]
    shares = [{"channel": int(channel), "share": float(centroid[channel])} for channel in best]
    return {"virtual": virtual, "layer": split.space, "channels": shares}


def _scores(found: Alignment) -> dict[str, Any]:
    """Each score with its null; ``overall`` has none."""
    scores = {
        name: asdict(value)
        for name in ("intra", "inter", "gap", "correlation")
        if isinstance(value := getattr(found, name), Score)
    }
    return scores | {"overall": found.overall}


def _stderr(fraction: float, message: str) -> None:
    print(f"{fraction:4.0%} {message}", file=sys.stderr, flush=True)


logging.getLogger("explorer").addHandler(logging.NullHandler())
