"""What need not come down: channels that are zero all over some pictures.

What a rectifier closes gets no relevance and passes no gradient. Where it closes a channel at every
place of all pictures that come down together, its row and its column of the weights around it can
go, and what is left is the same relevance with less work. The fewer pictures come down together,
the more channels are closed: in a sweep, where many neurons cite one picture, it gains most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from explorer.compute.pulls import Lone, Make, Product, Pull, Share, is_flat
from explorer.networks import modules as m

Channels = Mapping[fx.Node, Tensor]
"""The channels i64[K] that relevance of a value may have; of values not in it, all."""

WORTH, STEP = 0.95, 16
"""Channels are left out where at most this share of them remains, in steps of what a processor
works on at once."""


def narrows(module: nn.Module | None, inputs: tuple[Any, ...]) -> bool:
    """Whether a module can be called with some channels of such inputs: it mixes channels by its
    weights alone, or not at all."""
    if isinstance(module, m.Add):
        return all(isinstance(x, Tensor) and x.shape == inputs[0].shape for x in inputs)
    dense = isinstance(module, nn.Conv2d) and is_flat(module) and module.groups == 1
    return dense or isinstance(module, tuple(m.RECTIFIERS))


def open_channels(values: Mapping[fx.Node, Any], modules: Mapping[fx.Node, nn.Module]) -> Channels:
    """Which channels of the values of a pass matter. ``values`` are in their order: relevance comes
    to the first, and starts from the last. ``modules`` made them, where these ``narrows``."""
    found: dict[fx.Node, Tensor] = {}
    for node in reversed(list(values)[1:]):
        users = [user for user in node.users if user in values]
        if users and {node, *users} <= modules.keys() and values[node].dim() == 4:
            if isinstance(modules[node], tuple(m.RECTIFIERS)):
                inside = set(node.all_input_nodes) <= modules.keys()
                channels = _open(values[node]) if inside else None
            else:  # alive only through what reads it alone, without mixing channels
                alone = len(users) == 1 and not isinstance(modules[users[0]], nn.Conv2d)
                channels = found.get(users[0]) if alone else None
            if channels is not None:
                found[node] = channels
    return found


def between(
    make: Make,
    module: nn.Module | None,
    inputs: tuple[Tensor, ...],
    output: Tensor,
    own: Tensor | None,
    below: Sequence[Tensor | None],
) -> Pull:
    """What ``make`` makes of a module that ``narrows``, for relevance of the channels ``own`` of
    its output as relevance of the channels ``below`` of each input; None are all."""
    dense = isinstance(module, nn.Conv2d)
    inner = below[0] if dense else own
    chosen = tuple(some(x, inner) for x in inputs)
    pull = make(_with_channels(module, own, inner), chosen, some(output, own))
    if all(each is inner for each in below):
        return pull

    def numbered(shares: tuple[Share | None, ...]) -> tuple[Share | None, ...]:
        count = inputs[0].shape[1]
        pairs = zip(shares, below, strict=True)
        return tuple(_renumbered(share, inner, each, count) for share, each in pairs)

    return pull.then(numbered)


def at_steps(make: Make) -> Make:
    """``make`` for a 1 x 1 convolution that takes every other place of its input, say, as the
    convolution of what it takes: nothing comes down to the places between."""

    def made(module: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
        dense, steps = m.own(module), cast("tuple[int, int]", module.stride)
        cast(nn.Conv2d, dense).stride = (1, 1)

        def placed(shares: tuple[Share | None, ...]) -> tuple[Share | None, ...]:
            (share,) = shares
            found = share if isinstance(share, Product) else Product(cast(Tensor, share))
            return (replace(found, steps=steps),)

        return make(dense, (inputs[0][..., :: steps[0], :: steps[1]],), output).then(placed)

    return made


def _open(value: Tensor) -> Tensor | None:
    """The channels of [B,C,H,W] that are not zero everywhere; None where hardly any is."""
    closed = value.amax((0, 2, 3)) == 0
    count = -(-int((~closed).sum()) // STEP) * STEP
    if count > WORTH * len(closed):
        return None
    return torch.argsort(closed.byte(), stable=True)[: max(count, STEP)].sort().values


def some(value: Tensor, channels: Tensor | None) -> Tensor:
    """These channels of [B,C,H,W], channels last."""
    if channels is None:
        return value
    return _selected(value.movedim(1, -1), channels).movedim(-1, 1)


def _selected(maps: Tensor, channels: Tensor) -> Tensor:
    """These channels of [...,C]: of two dimensions this is four times as quick as of more."""
    chosen = maps.reshape(-1, maps.shape[-1]).index_select(1, channels)
    return chosen.reshape(*maps.shape[:-1], -1)


def _with_channels(
    module: nn.Module | None, outer: Tensor | None, inner: Tensor | None
) -> nn.Module | None:
    """A module that ``narrows``, from some channels to some."""
    if not isinstance(module, nn.Conv2d) or (outer is None and inner is None):
        return module
    made, weight = m.own(module), some(module.weight.detach(), inner)
    if outer is not None:
        weight = weight.permute(0, 2, 3, 1).index_select(0, outer).permute(0, 3, 1, 2)
        if module.bias is not None:
            made.bias = nn.Parameter(module.bias.detach()[outer], requires_grad=False)
    made.weight = nn.Parameter(weight, requires_grad=False)
    return made


def _renumbered(
    share: Share | None, before: Tensor | None, after: Tensor | None, count: int
) -> Share | None:
    """A share of the channels ``before`` as one of the channels ``after``, of ``count`` in all.
    What it has of others is of no use, and goes."""
    if share is None or before is after:
        return share
    (known, *_) = (each for each in (before, after) if each is not None)
    everything = torch.arange(count, device=known.device)
    before, after = (everything if each is None else each for each in (before, after))
    if isinstance(share, Lone):
        channel = _places(after, count)[before[share.channel]]
        return Lone(channel.clamp(min=0), share.value * (channel >= 0)[..., None, None])
    source = _places(before, count)[after]
    if isinstance(share, Tensor):
        return _drawn(share, source)
    by = share.by if share.by is None else _drawn(share.by, source)
    return replace(share, maps=_drawn(share.maps, source), by=by)


def _drawn(maps: Tensor, source: Tensor) -> Tensor:
    """[...,K,H,W], channels last: these channels of maps [...,C,H,W], zeros for the source -1."""
    drawn = _selected(maps.movedim(-3, -1), source.clamp(min=0))
    return drawn.index_fill_(-1, torch.nonzero(source < 0).flatten(), 0).movedim(-1, -3)


def _places(channels: Tensor, count: int) -> Tensor:
    """i64[count]: where each channel stands among these, -1 where it does not."""
    places = channels.new_full((count,), -1)
    return places.index_copy(0, channels, torch.arange(len(channels), device=channels.device))
