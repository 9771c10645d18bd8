"""Relevance of a lower layer's channels, or of pixels, for channels of an upper layer.

PURE (Dreyer et al. 2024): a pair of an image and a channel starts from G = relu(z) of the channel,
z its unclipped value, as a constant. ``gradient`` is R = (d<G, z>/da) a for the lower map a, what
the authors' code does; ``lrp`` propagates G by the rules of ``explorer.compute.rules``, what the
paper describes. Only the sub-network between the layers runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from explorer.compute.rules import Propagation
from explorer.networks.slices import Slice
from explorer.records import BadInput

WIDTH = 64
"""Pairs that one backward pass carries at least, where so many ask the same images."""


def relevance(
    part: Slice,
    inputs: Sequence[Tensor],
    channels: Tensor,
    rows: Tensor,
    rule: str = "gradient",
    seed: str = "map",
    positions: Tensor | None = None,
) -> Tensor:
    """[P,D]: signed relevance of the lower channels for each of P pairs, summed over space.

    ``inputs`` are those of ``part.module``, B images each, ``channels`` i64[P] the upper channel
    and ``rows`` i64[P] the image (0 to B-1) of each pair, any number of pairs per image: an image
    runs forward once. ``seed`` "map" starts from relu(z) over the whole map, "argmax" from z at
    ``positions`` i64[P] (flat in the map; None: each map's highest) alone. Raises MissingRule
    where ``rule`` is "lrp" and a module has none.
    """
    total = inputs[0].shape[part.lower_axis]
    found = inputs[0].new_empty((len(rows), total))
    for pairs, maps in _relevances(part, inputs, channels, rows, rule, seed, positions):
        space = [axis for axis in range(1, maps.dim()) if axis != part.lower_axis]
        found[pairs] = maps.sum(space) if space else maps
    return found


def heat(
    part: Slice, x: Tensor, channels: Tensor, positions: Tensor | None, rule: str = "lrp"
) -> Tensor:
    """[B,H,W]: relevance of the pixels of x [B,3,H,W], summed over RGB, for one channel each
    (i64[B]), from its value at one position (i64[B]; None: the highest) alone.

    ``part`` is a slice from the pixels. Raises MissingRule as ``relevance`` does.
    """
    found = x.new_empty((len(x), *x.shape[2:]))
    rows = torch.arange(len(x), device=x.device)
    for pairs, maps in _relevances(part, (x,), channels, rows, rule, "argmax", positions):
        found[pairs] = maps.sum(1)
    return found


def _relevances(
    part: Slice,
    inputs: Sequence[Tensor],
    channels: Tensor,
    rows: Tensor,
    rule: str,
    seed: str,
    positions: Tensor | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of some pairs, and the relevance of the whole lower map for each of them."""
    forward = _forward(part, rule)
    channels, rows = (each.to(inputs[0].device) for each in (channels, rows))
    if seed not in ("map", "argmax"):
        raise BadInput(f"'{seed}' is no start of relevance: choose 'map' or 'argmax'.")
    for pairs in _alike(rows):
        images, image = torch.unique(rows[pairs], return_inverse=True)
        lower, *frontier = (each.detach()[images] for each in inputs)
        lower.requires_grad_()
        z = forward(lower, *frontier)
        places = None if positions is None else positions.to(rows.device)[pairs]
        starts = _starts(z.detach().flatten(2)[image, channels[pairs]], seed, places)
        turns = _turns(image)
        at_once = max(1, WIDTH // len(images))
        last = int(turns.max())
        for first in range(0, last + 1, at_once):
            now = (turns >= first) & (turns < first + at_once)
            count = min(at_once, last + 1 - first)
            seeds = z.new_zeros((count, *z.shape)).flatten(3)
            turn, row = turns[now] - first, image[now]
            seeds[turn, row, channels[pairs][now]] = starts[now]
            more = first + count <= last
            maps = _pulled(z, lower, seeds.reshape(count, *z.shape), more)
            yield pairs[now], (maps * lower.detach() if rule == "gradient" else maps)[turn, row]


def _forward(part: Slice, rule: str) -> Callable[..., Tensor]:
    """What runs a slice so that its gradients are what the rule asks for."""
    if rule == "lrp":
        return Propagation(part).run
    if rule == "gradient":
        return part.module
    raise BadInput(f"'{rule}' is no attribution: choose 'gradient' or 'lrp'.")


def _alike(rows: Tensor) -> Iterator[Tensor]:
    """Indices of pairs, in groups whose images have about equally many pairs each (1, 2, 3 to 4,
    5 to 8 and so on), so that a backward pass over the images of a group wastes less than half.
    """
    _, image, count = torch.unique(rows, return_inverse=True, return_counts=True)
    level = (count[image] - 1).float().log2().floor() if len(rows) else rows.float()
    for value in torch.unique(level):
        yield torch.nonzero(level == value).flatten()


def _turns(image: Tensor) -> Tensor:
    """For each pair, how many earlier pairs have the same image."""
    order = torch.argsort(image, stable=True)
    ranked = image[order]
    start = torch.searchsorted(ranked, ranked)
    turns = torch.empty_like(image)
    turns[order] = torch.arange(len(image), device=image.device) - start
    return turns


def _starts(values: Tensor, seed: str, positions: Tensor | None) -> Tensor:
    """[P,S]: the starting relevance over the S places of each pair's map, from its values."""
    if seed == "map":
        return values.relu()
    places = values.argmax(1) if positions is None else positions
    only = torch.zeros_like(values)
    return only.scatter(1, places[:, None], values.gather(1, places[:, None]))


def _pulled(z: Tensor, lower: Tensor, seeds: Tensor, more: bool) -> Tensor:
    """[T,B,...]: the seeds [T,B,C,H,W] pulled back to the lower map, T at once."""

    def pull(seed: Tensor, batched: bool) -> Tensor:
        return torch.autograd.grad(
            z,
            lower,
            seed,
            retain_graph=more,
            is_grads_batched=batched,
            materialize_grads=True,  # zeros where the lower map is nothing but a gate
        )[0]

    return pull(seeds, True) if len(seeds) > 1 else pull(seeds[0], False)[None]
