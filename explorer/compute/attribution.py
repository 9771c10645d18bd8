"""Relevance of a lower layer's channels, or of pixels, for channels of an upper layer.

PURE (Dreyer et al. 2024): a pair of an image and a channel starts from G = relu(z) of the channel,
z its unclipped value, as a constant. ``gradient`` is R = (d<G, z>/da) a for the lower map a, what
the authors' code does; ``lrp`` propagates G by the rules of ``explorer.compute.rules``, what the
paper describes. ``raising`` is R where it is positive and 0 elsewhere; ``sensitivity`` is
d<G, z>/da alone. Only the sub-network between the layers runs, once for a picture however many
channels ask for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, fx

from explorer.compute.convolutions import is_flat
from explorer.compute.propagation import Known, Propagation
from explorer.compute.pulls import Later, Lone, Product, Share, total
from explorer.compute.rules import Rule, rules
from explorer.networks.slices import Slice
from explorer.records import BadInput

ATTRIBUTIONS = ("gradient", "raising", "sensitivity", "lrp")
WIDTH, HELD = {"cpu": 512, "cuda": 2048}, {"cpu": 1 << 26, "cuda": 1 << 28}
"""Pairs that come down at once, where so many ask the same images, and how many values the largest
of their maps may have, by the kind of device. With more turns of an image, choosing what is open
costs less for each."""

STEP = 32
"""Where more pairs come down at once, they are a multiple of so many, which fills registers."""

PIECE = 1 << 20
"""Values that are multiplied and added up at once."""


def relevance(
    part: Slice,
    inputs: Sequence[Tensor],
    channels: Tensor,
    rows: Tensor,
    rule: str = "gradient",
    seed: str = "map",
    positions: Tensor | None = None,
    known: Known | None = None,
) -> Tensor:
    """[P,D]: signed relevance of the lower channels for each of P pairs, summed over space.

    ``inputs`` are those of ``part.module``, B images each, ``channels`` i64[P] the upper channel
    and ``rows`` i64[P] the image (0 to B-1) of each pair, any number of pairs per image: an image
    runs forward once. ``seed`` "map" starts from relu(z) over the whole map, "argmax" from z at
    ``positions`` i64[P] (flat in the map; None: each map's highest) alone. What ``known`` gave for
    these inputs and this rule is not computed again. Raises MissingRule where ``rule`` is "lrp"
    and a module has none.
    """
    found = inputs[0].new_zeros((len(rows), inputs[0].shape[part.lower_axis]))
    about = part, inputs, channels, rows, rule, seed, positions
    for pairs, at, shares, lower in _pulled(*about, known or {}):
        if shares:  # there are none where the lower layer only opens gates
            found[pairs] = _sums(shares, lower, part.lower_axis, rule)[at]
    return found


def known(part: Slice, inputs: Sequence[Tensor], rule: str) -> Known:
    """What relevance of these B images asks of convolutions before it comes down, whatever the
    channels. Nothing where other modules mix channels too: they would run again all the same."""
    modules = part.module.modules() if part.traced else ()
    mixing = [m for m in modules if any(w.dim() > 1 for w in m.parameters(recurse=False))]
    if not mixing or not all(is_flat(module) for module in mixing):
        return {}
    propagation = Propagation(part, _rules(part, rule))
    propagation.forward(*inputs, only=torch.zeros(1, dtype=torch.long, device=inputs[0].device))
    return propagation.known()


def heat(
    part: Slice, x: Tensor, channels: Tensor, positions: Tensor | None, rule: str = "lrp"
) -> Tensor:
    """[B,H,W]: relevance of the pixels of x [B,3,H,W], summed over RGB, for one channel each
    (i64[B]), from its value at one position (i64[B]; None: the highest) alone.

    ``part`` is a slice from the pixels. Raises MissingRule as ``relevance`` does.
    """
    found = x.new_zeros((len(x), *x.shape[2:]))
    rows = torch.arange(len(x), device=x.device)
    for pairs, at, shares, _ in _pulled(part, (x,), channels, rows, rule, "argmax", positions, {}):
        maps = total(shares, x)
        found[pairs] = (maps * x if rule == "gradient" else maps).sum(2)[at]
    return found


def _sums(shares: Sequence[Share], lower: Tensor, axis: int, rule: str) -> Tensor:
    """[T,B,D]: shares of the lower map [B,...] added up, over space too; gradients times map."""
    if rule == "raising":  # what the shares come to, before it is told from what inhibits
        shares = [(total(shares, lower) * lower).clamp(min=0)]
    found = lower.new_zeros((1, len(lower), lower.shape[axis]))
    for share in sorted(shares, key=lambda each: isinstance(each, Lone)):
        if isinstance(share, Lone):
            value = share.value * share.of(lower) if rule == "gradient" else share.value
            alone = Lone(share.channel, value.sum((2, 3)))
            found = alone.add_to(found.expand(len(value), *found.shape[1:]).clone())
        else:
            product = share if isinstance(share, Product) else Product(share)
            found = found + _summed(product, lower if rule == "gradient" else None, axis)
    return found


def _summed(share: Product, lower: Tensor | None, axis: int) -> Tensor:
    """[T,B,D]: a share, times the lower map if there is one, added up over space; so many turns at
    once that what is multiplied stays in a processor's cache."""
    by = share.by
    if lower is not None:
        by = share.at(lower) if by is None else share.at(lower) * by
    if isinstance(share.source, Later) and share.source.summed and by is not None:
        return share.source.summed(by)
    space = [each for each in range(2, share.maps.dim()) if each != axis + 1]
    turns = max(1, PIECE // share.maps[0].numel())
    pieces = [maps if by is None else maps * by for maps in torch.split(share.maps, turns)]
    return torch.cat([piece.sum(space) if space else piece for piece in pieces])


def _pulled(
    part: Slice,
    inputs: Sequence[Tensor],
    channels: Tensor,
    rows: Tensor,
    rule: str,
    seed: str,
    positions: Tensor | None,
    known: Known,
) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor], list[Share], Tensor]]:
    """Indices of some pairs, where each of them is among T turns of B images, and the shares of
    the lower map of these images, [T,B,...] and [B,...]."""
    if seed not in ("map", "argmax"):
        raise BadInput(f"'{seed}' is no start of relevance: choose 'map' or 'argmax'.")
    propagation = Propagation(part, _rules(part, rule))
    channels, rows = (each.to(inputs[0].device) for each in (channels, rows))
    for pairs in _alike(rows):
        images, image = torch.unique(rows[pairs], return_inverse=True)
        lower, *frontier = (_of(each.detach(), images) for each in inputs)
        own_known = {name: _of(each, images) for name, each in known.items()}
        only = torch.unique(channels[pairs])
        z = propagation.forward(lower, *frontier, only=only, known=own_known)
        own = propagation.numbered(channels[pairs])
        places = None if positions is None else positions.to(rows.device)[pairs]
        values = z.flatten(2)[image, own]
        starts = _starts(values, seed, places).reshape(-1, *z.shape[2:])
        turns = _turns(image)
        count = int(turns.max()) + 1
        at_once = _at_once(count, len(images), propagation.largest(), z.device.type)
        for first in range(0, count, at_once):
            now = (turns >= first) & (turns < first + at_once)
            at = turns[now] - first, image[now]
            size = min(at_once, count - first), len(images)
            channel, value = channels.new_zeros(size), z.new_zeros((*size, *z.shape[2:]))
            channel[at], value[at] = own[now], starts[now]
            last = first + at_once >= count
            yield pairs[now], at, propagation.down(Lone(channel, value), last), lower


def _of(values: Tensor, images: Tensor) -> Tensor:
    """The values [B,...] of these images, each once and in order: all, or a copy of some."""
    return values if len(images) == len(values) else values[images]


def _at_once(count: int, images: int, values: int, device: str) -> int:
    """How many of the turns of images come down at once, whose largest maps have some values."""
    limit = max(1, min(WIDTH[device] // images, HELD[device] // values))
    even = math.ceil(count / math.ceil(count / limit))
    return even if even < STEP else math.ceil(even / STEP) * STEP


def _rules(part: Slice, rule: str) -> Mapping[fx.Node, Rule | None]:
    """The rules by which a slice is gone down; none where the gradient is."""
    if rule not in ATTRIBUTIONS:
        raise BadInput(f"'{rule}' is no attribution: choose one of {', '.join(ATTRIBUTIONS)}.")
    return rules(part) if rule == "lrp" else {}


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
