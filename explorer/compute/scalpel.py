"""One channel of a layer under the knife: what it and parts of it read and give on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explorer.compute.device_lab import DeviceLab
from explorer.compute.inputs import entering, outputs, sums, units
from explorer.compute.judging import Responses, measures, references, spread
from explorer.compute.passes import host, passing
from explorer.lab import Report
from explorer.networks import dividing, surgery
from explorer.networks.original import Original
from explorer.networks.surgery import Rows, Weighted
from explorer.records import Edit, Maker

RANKED = 2000
"""Pictures among which the highest of each new channel are looked for at most."""


def taken_up(
    lab: DeviceLab, original: Original, maker: Maker, channel: int, before: Sequence[Edit]
) -> tuple[Scalpel, Rows]:
    """What cuts a channel of a layer as earlier edits left it, and the layer's rows."""
    layer = original.layer(maker.path)
    _, rows = surgery.edit_layer(layer, before)
    row = surgery.as_numpy(rows, channel, maker.path)
    turn = original.makers.orientation(maker.path, int(rows.merge[:, channel].abs().argmax()))
    return Scalpel(lab, original, maker, layer, rows, channel, row, turn), rows


class Scalpel:
    """One channel under the knife: passes over pictures that stop at its layer."""

    def __init__(
        self,
        lab: DeviceLab,
        original: Original,
        maker: Maker,
        layer: Weighted,
        rows: Rows,
        channel: int,
        row: np.ndarray,
        turn: int,
    ) -> None:
        self.lab, self.model, self.path, self.layer = lab, original.model, maker.path, layer
        self.row, self.turn, self.group = row, turn, rows.group[channel]
        self.bias = 0.0 if rows.bias is None else float(rows.bias[channel])

    def moments(
        self, groups: Sequence[np.ndarray], report: Report
    ) -> tuple[np.ndarray, np.ndarray]:
        """f64[n,I,I]: mean products of what input units read at the places where the channel fires
        on the pictures of each concept, and i64[n] how many places those are."""
        row = torch.from_numpy(self.row).to(self.layer.weight)

        def read(x: Tensor, ids: np.ndarray) -> tuple[np.ndarray, int]:
            found = units(self.layer, entering(self.model, self.path, x), self.group)
            fires = (found @ row + self.bias) * self.turn > 0
            kept = found[fires]
            return host(kept.T @ kept).astype(np.float64), len(kept)

        total = np.zeros((len(groups), len(self.row), len(self.row)))
        count = np.zeros(len(groups), np.int64)
        for k, pictures in enumerate(groups):
            for _, (product, places) in passing(self.lab, pictures, read, "Inputs", report):
                total[k] += product
                count[k] += places
        return total / np.maximum(count, 1)[:, None, None], count

    def means(self, groups: Sequence[np.ndarray], report: Report) -> np.ndarray:
        """f64[n,I]: mean spatial sums of the inputs over the pictures of each concept."""

        def read(x: Tensor, ids: np.ndarray) -> np.ndarray:
            return host(sums(self.layer, entering(self.model, self.path, x))[:, self.group])

        found = []
        for pictures in groups:
            parts = [units for _, units in passing(self.lab, pictures, read, "Inputs", report)]
            found.append(np.concatenate(parts).astype(np.float64).mean(0))
        return np.stack(found)

    def criteria(
        self,
        groups: Sequence[np.ndarray],
        owners: Sequence[np.ndarray],
        usable: Sequence[bool],
        rule: str,
        report: Report,
    ) -> np.ndarray:
        """f32[G]: the criterion of each division, NaN where it cannot be used."""
        values = np.full(len(owners), np.nan, np.float32)
        at = np.flatnonzero(usable).tolist()
        made = [dividing.rows(self.row, owners[each], len(groups))[:-1] for each in at]
        concept = np.concatenate([np.full(len(each), k) for k, each in enumerate(groups)])
        responses = self.responses(np.concatenate(groups), np.concatenate(made), report)
        positive = responses.positive.reshape(len(responses.ids), len(at), len(groups))
        order = {int(image): k for image, k in zip(np.concatenate(groups), concept, strict=True)}
        whose = np.array([order[int(image)] for image in responses.ids])
        for number, each in enumerate(at):
            values[each] = dividing.criterion(positive[:, number], whose, rule)
        return values

    def responses(self, pictures: np.ndarray, rows: np.ndarray, report: Report) -> Responses:
        """What rows [R,I] make of pictures."""
        weight = torch.from_numpy(np.ascontiguousarray(rows)).to(self.layer.weight)
        bias = torch.full((len(rows),), self.bias).to(weight)

        def read(x: Tensor, ids: np.ndarray) -> tuple[np.ndarray, ...]:
            entered = entering(self.model, self.path, x)
            made = outputs(self.layer, entered, weight, bias, self.group)
            turned = made * self.turn
            held = (turned * (turned[:, :1] > 0)).double()
            parts = (
                *(turned.double().sum(2), turned.clamp(min=0).mean(2), turned.amax(2)),
                *((held * held).sum(2), (held * held[:, :1]).sum(2)),
            )
            return tuple(host(part) for part in parts)

        found: list[list[np.ndarray]] = [[] for _ in range(6)]
        for kept, parts in passing(self.lab, pictures, read, "Responses", report):
            for into, part in zip(found, (kept, *parts), strict=True):
                into.append(part)
        return Responses(*(np.concatenate(each) for each in found))

    def judge(self, edit: Edit, groups: Sequence[np.ndarray], report: Report) -> dict[str, Any]:
        """The measures of an Incision, on pictures that did not choose it."""
        made = surgery.parts_of(self.row, edit)
        ranked = spread(len(self.lab.images), RANKED)
        wanted = np.unique(np.concatenate([ranked, *groups]))
        found = self.responses(wanted, np.concatenate([self.row[None], made]), report)
        places = {int(image): at for at, image in enumerate(found.ids)}
        own = [np.array([places[int(i)] for i in g if int(i) in places]) for g in groups]
        return measures(found, own) | references(self.lab.images, found, len(groups))
