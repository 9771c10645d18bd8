"""Commands about a workspace: demo, layers, scan, neurons."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import numpy as np

from explorer.commands.command import Command, Found, add_engine, progress
from explorer.embedders import title
from explorer.records import ImageSet, LayerTable
from explorer.session import Session
from explorer.settings import load_settings

SORTS = {"max": "maximum", "mean": "mean", "density": "density", "purity": "purity"}


def demo(args: argparse.Namespace) -> Found:
    from explorer.images.demo import prepare

    return {"folder": str(prepare(load_settings().data_dir, progress))}


def layers(args: argparse.Namespace) -> Found:
    session = Session(args)
    network = session.wait(lambda: session.backend.network(session.ws, session.asker))
    return {
        "network": network.source,
        "notice": network.notice,
        "default": network.default_layer,
        "layers": [asdict(layer) for layer in network.layers],
    }


def scan(args: argparse.Namespace) -> Found:
    session = Session(args)
    ask = session.backend
    return asdict(session.wait(lambda: ask.scan(session.ws, args.layers, session.asker)))


def neurons(args: argparse.Namespace) -> Found:
    session = Session(args)
    ask = session.backend
    table = session.wait(lambda: ask.table(session.ws, args.layer, session.asker))
    images = session.wait(lambda: ask.images(session.ws, session.asker))
    found: dict[str, Any] = {"layer": args.layer}
    column = np.asarray(getattr(table, SORTS[args.sort]))
    score = None
    if args.search:
        text = args.search
        answer = session.wait(lambda: ask.search(session.ws, args.layer, text, session.asker))
        found |= {
            "search": answer.text,
            "embedder": title(answer.embedder),
            "notice": answer.notice,
        }
        score = answer.score
        column = np.nan_to_num(score, nan=-np.inf)
    order = np.argsort(-column, kind="stable")[: max(args.limit, 0)]
    return found | {"neurons": [_row(table, images, int(channel), score) for channel in order]}


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


def _scan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layers", nargs="+", default=[], help="default: all rectified layers")
    add_engine(parser)


def _neurons_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layer")
    parser.add_argument("--sort", default="max", choices=tuple(SORTS), help="default: max")
    parser.add_argument("--search", default="", metavar="TEXT", help="rank by words instead")
    parser.add_argument("--limit", type=int, default=50, help="rows to print (default: 50)")


COMMANDS = (
    Command("demo", "fetch and compose the demo pictures", demo, workspace=False),
    Command("layers", "list the browsable layers of the network", layers),
    Command("scan", "scan the pictures; resumes where it stopped", scan, _scan_options),
    Command("neurons", "the table of a layer, sorted or searched", neurons, _neurons_options),
)
