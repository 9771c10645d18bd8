"""What a network loses when one channel is set to zero everywhere."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from explorer.compute.batching import in_batches
from explorer.compute.device_lab import DeviceLab
from explorer.compute.scan import to_input
from explorer.lab import Report
from explorer.records import Neuron

BATCH = 32
TEMPERATURE = 1.1
"""Logits are divided by it before the cross-entropy, as in the paper."""


def effects(lab: DeviceLab, neuron: Neuron, index: np.ndarray, report: Report) -> np.ndarray:
    """f32[n,3] for pictures ``index`` i64[n]: the cross-entropy of the network's own answer (the
    class that it ranks first), the same without the channel, and whether the answer stays the
    same (1) or not (0). One pass serves both: only what follows the layer is run twice.

    Raises BadInput where the network cannot be traced.
    """

    def part(images: np.ndarray) -> np.ndarray:
        x = to_input(np.stack([lab.view(int(image)) for image in images]), lab.model)
        before, after = lab.model.without(x, neuron.layer, neuron.channel)
        own = before.argmax(1)
        losses = [
            F.cross_entropy(each.float() / TEMPERATURE, own, reduction="none")
            for each in (before, after)
        ]
        return torch.stack([*losses, (after.argmax(1) == own).float()], 1).cpu().numpy()

    parts = []
    for start in range(0, len(index), BATCH):
        report(start / len(index), f"Taking out the channel: {start:,} of {len(index):,} pictures")
        parts += in_batches(part, index[start : start + BATCH], BATCH)
    return np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)
