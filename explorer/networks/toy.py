"""The toy network: small enough to be trained in a minute, with a layer too narrow for its task."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import Tensor, nn

from explorer.records import BadInput, Preprocess

NARROWEST, WIDEST = 2, 256
CONCEPTS = 24
"""Outputs where no weights say how many."""

PREPROCESS = Preprocess(64, 64, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Toy(nn.Module):
    """Convolutions with batch norm and ReLU, the layer ``narrow`` of ``size`` channels between
    wider ones, the maximum over places, and one logit per concept. From f32[B,3,64,64]."""

    def __init__(self, size: int, concepts: int) -> None:
        super().__init__()
        if not NARROWEST <= size <= WIDEST:
            raise BadInput(
                f"A toy network has a narrow layer of {NARROWEST} to {WIDEST} channels, not {size}."
            )
        self.edges = _block(3, 12, 5, 2)
        self.parts = _block(12, 32, 3, 2)
        self.forms = _block(32, 64, 3, 2)
        self.narrow = _block(64, size, 1, 1)
        self.wide = _block(size, 64, 1, 1)
        self.pool = nn.MaxPool2d(8)
        self.head = nn.Linear(64, concepts)
        nn.init.constant_(self.head.bias, -math.log(concepts))  # most concepts are absent

    def forward(self, x: Tensor) -> Tensor:
        """Logits f32[B,concepts]."""
        return self.read(self.narrowed(x))

    def narrowed(self, x: Tensor) -> Tensor:
        """The maps f32[B,size,8,8] of the narrow layer."""
        maps: Tensor = self.narrow(self.forms(self.parts(self.edges(x))))
        return maps

    def read(self, maps: Tensor) -> Tensor:
        """Logits f32[B,concepts] from the maps of the narrow layer."""
        logits: Tensor = self.head(self.pool(self.wide(maps)).flatten(1))
        return logits


def _block(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    parts = {"conv": convolution, "norm": nn.BatchNorm2d(outputs), "act": nn.ReLU()}
    return nn.Sequential(OrderedDict(parts))
