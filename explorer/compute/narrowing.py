"""What need not come down: channels that are zero all over some pictures, places between steps,
and at the upper layer the channels that nobody asks for, and below it those that they do not reach.

What a rectifier closes gets no relevance and passes no gradient. Where it closes a channel at every
place of all pictures that come down together, its row and its column of the weights around it can
go, and what is left is the same relevance with less work. The fewer pictures come down together,
the more channels are closed: in a sweep, where many neurons cite one picture, it gains most.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from explorer.compute.convolutions import is_flat
from explorer.compute.pulls import Change, Lone, Make, Product, Pull, Share
from explorer.networks import modules as m


@dataclass(frozen=True)
class Open:
    """Where relevance of a value can be: where a rectifier's ``value`` [B,C,H,W] is not zero. Those
    are the ``channels`` i64[K], or hardly fewer than all (None)."""

    value: Tensor
    channels: Tensor | None


Opened = Mapping[fx.Node, Open]
"""What is known of the values of a pass; of values not in it, nothing."""

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


def opened(
    values: Mapping[fx.Node, Any],
    modules: Mapping[fx.Node, nn.Module],
    reached: Mapping[fx.Node, Tensor],
    among: Container[fx.Node],
) -> Opened:
    """What of the values of a pass matters. ``values`` are in their order: relevance comes to the
    first, and starts from the last. ``modules`` made them, where these ``narrows``; it comes to
    no other channels than the ``reached`` bool[C], where they are known. Only rectifiers ``among``
    some are looked at."""
    found: dict[fx.Node, Open] = {}
    for node in reversed(list(values)[1:]):
        users = [user for user in node.users if user in values]
        if users and {node, *users} <= modules.keys() and values[node].dim() == 4:
            if isinstance(modules[node], tuple(m.RECTIFIERS)):
                if node in among and set(node.all_input_nodes) <= modules.keys():
                    found[node] = Open(values[node], _open(values[node], reached.get(node)))
            elif len(users) == 1 and not isinstance(modules[users[0]], nn.Conv2d):
                reader = found.get(users[0])
                if reader is not None:
                    found[node] = reader
    return found


def between(
    make: Make,
    module: nn.Module | None,
    inputs: tuple[Tensor, ...],
    output: Tensor,
    above: Open | None,
    feeders: Sequence[Open | None],
) -> Pull:
    """What ``make`` makes of a module that ``narrows``, for relevance of the channels of its output
    that are open as relevance of those of each input."""
    own, *below = (None if each is None else each.channels for each in (above, *feeders))
    dense = isinstance(module, nn.Conv2d)
    inner = below[0] if dense else own
    chosen = tuple(some(x, inner) for x in inputs)
    pull = make(with_channels(module, own, inner), chosen, some(output, own))
    if isinstance(module, m.Add) and above is not None:
        pull = pull.then(_closing((some(above.value, own) != 0).to(output)))
    if all(each is inner for each in below):
        return pull
    return pull.then(_renumbering(inputs, inner, below))


def last(network: fx.GraphModule, end: fx.Node) -> frozenset[fx.Node]:
    """The nodes at the end of a network that can make some of its channels alone: a convolution, or
    a sum with the convolutions that it alone reads. None where others may be."""
    shape: Sequence[int] = end.meta.get("shape") or ()
    own = _module(network, end)
    if len(shape) != 4:
        return frozenset()
    if isinstance(own, m.Add):
        feeders = (each for each in end.all_input_nodes if len(each.users) == 1)
        return frozenset((end, *(f for f in feeders if _makes(_module(network, f), shape[1]))))
    return frozenset((end,)) if _makes(own, shape[1]) else frozenset()


def at_end(make: Make, channels: Tensor, as_is: Sequence[bool]) -> Make:
    """``make`` for a sum of these channels of its inputs, but those that are taken ``as_is``."""

    def made(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Pull:
        chosen = of_end(inputs, channels, as_is)
        after = [channels if own else None for own in as_is]
        return make(module, chosen, output).then(_renumbering(inputs, channels, after))

    return made


def of_end(inputs: Sequence[Tensor], channels: Tensor, as_is: Sequence[bool]) -> tuple[Tensor, ...]:
    """These channels of the inputs of a sum, but those that are taken ``as_is``: because they have
    no others, or a single one that goes to all."""
    pairs = zip(inputs, as_is, strict=True)
    return tuple(x if own else some(x, channels) for x, own in pairs)


def _renumbering(
    inputs: Sequence[Tensor], before: Tensor | None, after: Sequence[Tensor | None]
) -> Change:
    """Shares of the channels ``before`` of inputs as those of the channels ``after``."""

    def numbered(shares: tuple[Share | None, ...]) -> tuple[Share | None, ...]:
        each = zip(shares, inputs, after, strict=True)
        return tuple(_renumbered(share, before, own, x.shape[1]) for share, x, own in each)

    return numbered


def _module(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def _makes(module: nn.Module | None, channels: int) -> bool:
    """Whether a module is a convolution that makes so many channels, each from all of its input."""
    dense = isinstance(module, nn.Conv2d) and is_flat(module) and module.groups == 1
    return dense and cast(nn.Conv2d, module).out_channels == channels


def _closing(gate: Tensor) -> Change:
    """Shares of maps that are zero where a gate [B,...] of zeros and ones is, made to say so."""

    def closed(share: Share | None) -> Share | None:
        if isinstance(share, Product):
            return replace(share, by=gate if share.by is None else share.by * gate)
        return Product(share, gate, shared=True) if isinstance(share, Tensor) else share

    return lambda shares: tuple(closed(share) for share in shares)


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


def _open(value: Tensor, reached: Tensor | None = None) -> Tensor | None:
    """The channels of [B,C,H,W] that are not zero everywhere, of those ``reached`` bool[C]; None
    where these are nearly all."""
    closed = value.amax((0, 2, 3)) == 0
    if reached is not None:
        closed |= ~reached
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
    order = sorted(range(maps.dim() - 1), key=maps.stride, reverse=True)
    laid = maps.permute(*order, -1)  # as it lies in memory
    chosen = laid.reshape(-1, maps.shape[-1]).index_select(1, channels)
    back = [order.index(axis) for axis, _ in enumerate(order)]
    return chosen.reshape(*laid.shape[:-1], -1).permute(*back, -1)


def with_channels(
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
    return replace(share, source=_drawn(share.maps, source), by=by)


def _drawn(maps: Tensor, source: Tensor) -> Tensor:
    """[...,K,H,W], channels last: these channels of maps [...,C,H,W], zeros for the source -1."""
    drawn = _selected(maps.movedim(-3, -1), source.clamp(min=0))
    return drawn.index_fill_(-1, torch.nonzero(source < 0).flatten(), 0).movedim(-1, -3)


def _places(channels: Tensor, count: int) -> Tensor:
    """i64[count]: where each channel stands among these, -1 where it does not."""
    places = channels.new_full((count,), -1)
    return places.index_copy(0, channels, torch.arange(len(channels), device=channels.device))
