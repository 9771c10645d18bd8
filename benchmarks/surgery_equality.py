"""Is an edited network the network that it was? Differences of logits on real pictures.

    python -m benchmarks.surgery_equality FOLDER --layers conv_stem classifier --pictures 500

FOLDER holds class folders. Prints a line per layer and number of concepts; nothing is stored.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.channel_surgery import Bench, arguments
from explorer.compute.judging import spread
from explorer.compute.passes import passing
from explorer.networks import surgery
from explorer.records import Edit


def equality(bench: Bench, layers: Sequence[str], most: int) -> None:
    """Channels divided at random in two, three and four: largest logit difference in float32 and
    float64, and changed first classes. Pictures are decoded once and the original computed once;
    an edited network goes on from what the original had computed before the edited layer."""
    model, pictures = bench.original.model, spread(len(bench.lab.images), most)
    names = [(path, n) for path in layers for n in (2, 3, 4)]
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
    print(f"{bench.workspace.network}: {sum(read_)} pictures, largest logit {largest:.3g}")
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
    parser = arguments()
    parser.add_argument("--layers", nargs="+", required=True)
    parser.add_argument("--pictures", type=int, default=500)
    args = parser.parse_args()
    equality(Bench(args), args.layers, args.pictures)


if __name__ == "__main__":
    main()
