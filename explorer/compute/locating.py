"""Where a neuron looks in its references; each half of the cores takes batches of its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from queue import SimpleQueue

import numpy as np
import torch
from torch import Tensor, fx

from explorer.compute import attribution
from explorer.compute.batching import in_batches
from explorer.compute.crops import boxes_and_heat
from explorer.lab import Report
from explorer.networks.cores import side_by_side
from explorer.networks.slices import Slice
from explorer.records import Crops, References

HALVES, MOST, ROOM = 2, 16, 2**30
"""How many batches are under way, each on its share of the cores; of how many pictures, at most (of
fewer, PyTorch leaves some convolutions on a single core to slower code), and whose maps may take
about so many bytes."""
CUDA_MOST, CUDA_SHARE = 128, 8
"""On a CUDA device one batch is under way, of so many pictures at most, whose maps may take this
part of the memory that is free: what relevance makes of them takes as much again, and more."""
FIRST, MORE = 16, 48
"""Pictures whose crops can be shown before all are there, where nobody says which are wanted: a
page of references, and those among which the strongest of each virtual neuron mostly are."""


def crops(
    piece: Slice,
    inputs: Callable[[np.ndarray], Tensor],
    references: References,
    rule: str,
    wanted: np.ndarray,
    first: Callable[[Crops], None],
    report: Report,
) -> Crops:
    """Boxes and heat maps of relevance from each reference's strongest position down ``piece``, a
    slice from the pixels, whose ``inputs`` f32[B,3,H,W] are given for pictures i64[B]. ``first``
    gets what there is as soon as that is the references at ``wanted`` i64[n] (none: MORE of them),
    and before that FIRST, where these are too many for one turn of the cores. Raises MissingRule
    as ``attribution.heat`` does.
    """
    count = len(references.index)
    order = np.concatenate([wanted, np.setdiff1d(np.arange(count), wanted)])
    soon = len(wanted) or MORE
    marks = (soon,) if soon <= HALVES * MOST else (FIRST, soon)
    made: list[np.ndarray] = []

    def some() -> Crops:
        box, heat, degenerate = boxes_and_heat(np.concatenate(made))
        at = np.argsort(order[: len(box)])
        about = references.neuron, references.query, references.index[order[at]]
        return Crops(*about, box[at], heat[at], degenerate[at], rule)

    def tell() -> None:
        report(done / count, f"Heat maps: {done} of {count}")

    done, parts = 0, np.split(order, marks)
    with closing(_heat_maps(piece, inputs, references, rule, parts, tell)) as batches:
        for maps in batches:
            done += len(maps)
            made.append(maps)
            tell()
            if done in marks and done < count:
                first(some())
    return some()


def whole(references: References, size: int) -> Crops:
    """Whole pictures of ``size`` pixels a side, of what is no neuron that could look anywhere."""
    count = len(references.index)
    heat, degenerate = np.zeros((count, 1, 1), np.uint8), np.ones(count, bool)
    about = references.neuron, references.query, references.index
    return Crops(*about, whole_boxes(count, size), heat, degenerate, "none")


def whole_boxes(count: int, size: int) -> np.ndarray:
    """i32[K,4]: boxes around whole pictures."""
    return np.tile(np.array([0, 0, size, size], np.int32), (count, 1))


def _heat_maps(
    piece: Slice,
    inputs: Callable[[np.ndarray], Tensor],
    references: References,
    rule: str,
    parts: Sequence[np.ndarray],
    idle: Callable[[], None],
) -> Generator[np.ndarray, None, None]:
    """f32[B,H,W] of successive batches of the references: of one of the ``parts`` i64[K], which is
    shown when it is there, after the other. ``idle`` is called while one is waited for."""
    on_cpu = _device(piece).type == "cpu"
    at_once = min(HALVES, torch.get_num_threads()) if on_cpu else 1
    size = _size(piece)
    slices: SimpleQueue[Slice] = SimpleQueue()
    for _ in range(at_once):
        slices.put(_own(piece))

    def part(at: np.ndarray) -> np.ndarray:
        x = inputs(references.index[at])
        channels = torch.full((len(at),), references.neuron.channel, device=x.device)
        places = torch.from_numpy(references.position[at]).to(x.device, torch.int64)
        mine = slices.get()
        try:
            return attribution.heat(mine, x, channels, places, rule).float().cpu().numpy()
        finally:
            slices.put(mine)

    def batch(at: np.ndarray) -> np.ndarray:
        return np.concatenate(in_batches(part, at, size))

    batches = [each for some in parts for each in _evenly(some, at_once, size)]
    yield from side_by_side(batch, batches, at_once, idle) if at_once > 1 else map(batch, batches)


def _evenly(some: np.ndarray, at_once: int, size: int) -> list[np.ndarray]:
    """Batches of ``size`` at most, of which as many are under way ``at_once`` to the last turn."""
    turns = math.ceil(len(some) / (at_once * size))
    return [each for each in np.array_split(some, max(1, turns * at_once)) if len(each)]


def _own(piece: Slice) -> Slice:
    """The same slice with modules of its own, whose weights are shared: a rule puts others in their
    place while it runs."""
    tensors = (*piece.module.parameters(), *piece.module.buffers())
    return replace(piece, module=copy.deepcopy(piece.module, {id(each): each for each in tensors}))


def _size(piece: Slice) -> int:
    """How many pictures there is room for; a few of a network whose maps are not known."""
    device, most, room = _device(piece), MOST, ROOM
    if device.type == "cuda":
        most, room = CUDA_MOST, torch.cuda.mem_get_info(device)[0] // CUDA_SHARE
    nodes = piece.module.graph.nodes if isinstance(piece.module, fx.GraphModule) else ()
    shapes = [shape for node in nodes if (shape := node.meta.get("shape"))]
    maps = 4 * sum(math.prod(shape[1:]) for shape in shapes)
    return max(1, min(most, room // maps)) if maps else most // 4


def _device(piece: Slice) -> torch.device:
    return next((each.device for each in piece.module.parameters()), torch.device("cpu"))
