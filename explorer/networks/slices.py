"""A sub-network between two layers, as methods see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Slice:
    """The part of a network that leads from ``lower`` (None: the pixels) to ``upper``.

    ``module(lower map, *frontier)`` gives f32[B,C,H,W], channels at axis 1 whatever the network's
    own layout: the pre-activation of ``upper`` where its activation is a ReLU, clipped or not,
    else its value; either way rectifying it gives what is browsed. The lower map comes in the
    network's own layout, channels at ``lower_axis``; the frontier is every other value that
    enters (residual connections around the lower layer, or the pixels where not ``traced``).
    ``Network.inputs`` makes both.

    In a traced slice each call has its own module, belonging to this slice alone with shared
    parameters. ``paths`` maps their names to module paths for people. Where not ``traced``,
    ``module`` runs the whole network and serves gradients only.
    """

    module: nn.Module
    lower: str | None
    upper: str
    lower_axis: int
    traced: bool
    paths: Mapping[str, str]
