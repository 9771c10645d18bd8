"""What a network answers without one channel."""

from __future__ import annotations

import numpy as np

from explorer.compute.batching import in_batches
from explorer.compute.device_lab import DeviceLab
from explorer.compute.scan import to_input
from explorer.lab import Report
from explorer.records import Neuron

BATCH = 32


def without(
    lab: DeviceLab, neuron: Neuron, index: np.ndarray, report: Report
) -> tuple[np.ndarray, np.ndarray]:
    """Logits f32[n,classes] of pictures ``index`` i64[n], n > 0, twice: as they are, and with the
    channel set to zero everywhere. Of the two passes only what follows the layer is run twice."""

    def part(images: np.ndarray) -> np.ndarray:
        x = to_input(np.stack([lab.view(int(image)) for image in images]), lab.model)
        both = lab.model.without(x, neuron.layer, neuron.channel)
        return np.stack([each.float().cpu().numpy() for each in both])

    parts = []
    for start in range(0, len(index), BATCH):
        report(start / len(index), f"Taking out the channel: {start:,} of {len(index):,} pictures")
        parts += in_batches(part, index[start : start + BATCH], BATCH)
    before, after = np.concatenate(parts, axis=1)
    return before, after
