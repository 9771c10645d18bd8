"""A loaded network as the rest of the explorer asks it: its layers, their maps, and slices."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from explorer.networks.hooked import Hooked
from explorer.networks.modules import channels_last
from explorer.networks.slices import Slice
from explorer.networks.traced import Reduce, Traced
from explorer.networks.zoo import Loaded
from explorer.records import PRECISIONS, BadInput, NetworkInfo

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""How far, relative to the largest logit, the canonical form may be from the network itself."""

DTYPES = dict(zip(PRECISIONS, (torch.float32, torch.bfloat16), strict=True))

UNTRACED = (
    "This network cannot be traced, so whole forward passes are used: it is slower, and "
    "relevance is by gradient only."
)


class Network:
    """A network on a device. Every method may be called by one thread only, except that several
    may ask a traced one for ``features``.

    Inputs are [B,3,H,W], in single precision or its own, normalised as ``info.preprocess`` says, on
    any device. Layer names are those of ``info.layers``; any other module path that denotes one of
    them is accepted.
    """

    def __init__(
        self,
        info: NetworkInfo,
        core: Traced | Hooked,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.info = info
        self.device = device
        self.dtype = dtype
        self.traced = isinstance(core, Traced)
        self._core = core
        self._aliases = core.aliases()

    @classmethod
    def build(
        cls, loaded: Loaded, device: torch.device | str = "cpu", precision: str = PRECISIONS[0]
    ) -> Network:
        """Trace a network, or fall back on hooks where that fails, and move it to a device, to
        run there in one of PRECISIONS."""
        device = torch.device(device)
        model = loaded.model.eval().requires_grad_(False)
        parameters = sum(p.numel() for p in model.parameters())
        side = loaded.preprocess.crop
        x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        core = _core(model, x)
        notices = (loaded.notice, "" if isinstance(core, Traced) else UNTRACED)
        dtype = DTYPES[precision]
        channels_last(core.network.to(device, dtype))
        info = NetworkInfo(
            source=loaded.source,
            weights=loaded.weights,
            digest=loaded.digest,
            parameters=parameters,
            layers=tuple(found.layer for found in core.found.values()),
            default_layer=core.default,
            preprocess=loaded.preprocess,
            classes=loaded.classes,
            notice=" ".join(notice for notice in notices if notice),
        )
        return cls(info, core, device, dtype)

    def resolve(self, layer: str) -> str:
        """The name of the layer that a module path denotes; BadInput when there is none."""
        return self.info.layer(self._aliases.get(layer, layer)).name

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """f32[B,classes]: the network's output."""
        return self._core.logits(self._ready(x))

    @torch.no_grad()
    def without(
        self, x: Tensor, layer: str, channels: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """f32[B,classes]: the network's output; and f32[P,classes]: the output for pictures
        ``rows`` i64[P], each with its own one of ``channels`` i64[P] of a layer set to zero
        everywhere."""
        if not len(rows):
            before = self.logits(x)
            return before, before[:0]
        pairs = channels.to(self.device), rows.to(self.device)
        return self._core.without(self._ready(x), self.resolve(layer), *pairs)

    @torch.no_grad()
    def features(
        self, x: Tensor, layers: Sequence[str], reduce: Reduce | None = None
    ) -> dict[str, Any]:
        """What is browsed of each layer, from one forward pass that stops after the last.

        f32[B,C,H,W], channels at axis 1 (H = W = 1 where the layer has no map): rectified but
        not clipped where the activation is a ReLU of any kind, else the layer's own value.
        With ``reduce`` each map is passed through it as soon as it is computed, and its answer
        is returned instead, so that no map outlives its use: an answer may share no memory with
        its map, which may be cut at the ceiling in place. The keys are the names given.
        """
        names = [self.resolve(layer) for layer in layers]
        found = self._core.features(self._ready(x), tuple(dict.fromkeys(names)), reduce)
        return {layer: found[name] for layer, name in zip(layers, names, strict=True)}

    def slice(self, lower: str | None, upper: str) -> Slice:
        """The sub-network from ``lower`` (None: the pixels) to ``upper``; made once."""
        name = None if lower is None else self.resolve(lower)
        return self._core.slice(name, self.resolve(upper))

    @torch.no_grad()
    def inputs(self, x: Tensor, part: Slice) -> tuple[Tensor, ...]:
        """What ``part.module`` takes, from pixels: the lower map as the network computes it
        (clipped) and the frontier, all with B first; one forward pass that stops there."""
        return self._core.inputs(self._ready(x), part)

    def _ready(self, x: Tensor) -> Tensor:
        return x.to(self.device, self.dtype, memory_format=torch.channels_last)


def _core(model: nn.Module, x: Tensor) -> Traced | Hooked:
    """The traced network if tracing keeps its function, else the network with hooks."""
    with torch.no_grad():
        truth = model(x)
    if not isinstance(truth, Tensor):
        raise BadInput("This network gives no tensor of class scores: choose a classifier.")
    try:
        traced = Traced(model, x)
        with torch.no_grad():
            logits = traced.logits(x)
        if traced.found and _close(logits, truth):
            return traced
        logger.info("%s computes something else when traced", type(model).__name__)
    except Exception as error:  # noqa: BLE001 - tracing runs foreign code, which may raise anything
        logger.info("%s cannot be traced: %s", type(model).__name__, error)
    return Hooked(model, x)


def _close(found: Tensor, truth: Tensor) -> bool:
    scale = float(truth.abs().max()) + 1e-6
    return found.shape == truth.shape and float((found - truth).abs().max()) <= TOLERANCE * scale
