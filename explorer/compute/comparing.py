"""An edited network against its original, on real pictures."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from explorer.compute.device_lab import DeviceLab
from explorer.compute.inputs import multiplications
from explorer.compute.passes import batch, passing, targets_of
from explorer.lab import Report
from explorer.networks import surgery
from explorer.networks.original import Original
from explorer.records import Incision, PartsAlignment, SurgeryReport

KINDS = (torch.float32, torch.float64)


def compare(
    lab: DeviceLab,
    original: Original,
    incisions: Sequence[Incision],
    alignments: Sequence[PartsAlignment],
    pictures: np.ndarray,
    report: Report,
) -> SurgeryReport:
    """The edited network against the original on pictures, in float32 and in float64."""
    start = time.monotonic()
    edits = [*original.edits, *(each.edit for each in incisions)]
    edited = surgery.apply(original.model, edits)
    exact = (copy.deepcopy(original.model).double(), copy.deepcopy(edited).double())
    pairs = [(original.model, edited), exact]
    targets = targets_of(lab.images.label_names, lab.network.classes)
    labels = lab.images.labels
    differences: list[list[float]] = [[], []]
    scale, changed, right = 0.0, 0, []

    @torch.no_grad()
    def read(x: Tensor, ids: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        return [
            (old(x.to(kind)), new(x.to(kind)))
            for (old, new), kind in zip(pairs, KINDS, strict=True)
        ]

    for ids, logits in passing(lab, pictures, read, "Comparing", report):
        for at, (old, new) in enumerate(logits):
            differences[at].append(float((old - new).abs().max()))
        old, new = logits[0]
        scale = max(scale, float(old.abs().max()))
        changed += int((old.argmax(1) != new.argmax(1)).sum())
        right.append(_right(old, new, np.where(labels[ids] >= 0, targets[labels[ids]], -1)))
    x = batch(lab, pictures[:1])
    counted = [sum(p.numel() for p in model.parameters()) for model in pairs[0]]
    return SurgeryReport(
        incisions=tuple(incisions),
        alignments=tuple(alignments),
        pictures=sum(len(each) for each in right),
        difference=max(differences[0]),
        difference64=max(differences[1]),
        scale=scale,
        changed=changed,
        accuracy=_accuracy(np.concatenate(right)),
        parameters=np.array(counted, np.int64),
        multiplications=np.array([multiplications(m, x) for m in pairs[0]], np.int64),
        seconds=time.monotonic() - start,
    )


def _right(old: Tensor, new: Tensor, target: np.ndarray) -> np.ndarray:
    """f64[B,2,2]: before and after; first and first five classes right; NaN where not known."""
    wanted = torch.as_tensor(target, device=old.device)[:, None]
    found = []
    for logits in (old, new):
        best = logits.topk(min(5, logits.shape[1])).indices == wanted
        found.append(torch.stack([best[:, 0], best.any(1)], 1).double().cpu().numpy())
    right = np.stack(found, 1)
    right[target < 0] = np.nan
    return np.asarray(right)


def _accuracy(right: np.ndarray) -> np.ndarray:
    known = right[np.isfinite(right[:, 0, 0])]
    return (known.mean(0) if len(known) else np.full((2, 2), np.nan)).astype(np.float32)
