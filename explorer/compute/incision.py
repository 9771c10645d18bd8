"""Divide one channel and judge the division on pictures that did not choose it
(arXiv 2504.12939, generalised: see ``docs/surgery.md``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explorer.compute.device_lab import DeviceLab
from explorer.compute.inputs import entering, outputs, sums
from explorer.compute.judging import Responses, measures, references, spread
from explorer.compute.passes import host, passing
from explorer.lab import Report
from explorer.networks import dividing, surgery
from explorer.networks.original import Original
from explorer.networks.surgery import Rows, Weighted
from explorer.records import BadInput, Edit, Incision, Maker, PartResponses

EACH = 200
"""Pictures of a concept that are used at most, half to choose and half to judge."""
RANKED = 2000
"""Pictures among which the highest of each new channel are looked for at most."""


@dataclass(frozen=True)
class Concept:
    """What a channel is divided into: a name and its pictures i64[·]."""

    name: str
    pictures: np.ndarray


def incise(
    lab: DeviceLab,
    original: Original,
    maker: Maker,
    channel: int,
    concepts: Sequence[Concept],
    rule: str,
    rho: float,
    before: Sequence[Edit],
    report: Report,
) -> Incision:
    """Divide one channel among concepts and judge it; ``rho`` 0 chooses it. Half of each concept's
    pictures choose, by a fixed shuffle of their photographs; the other half judge."""
    scalpel, rows = _scalpel(lab, original, maker, channel, before)
    row = scalpel.row
    halves = [_halves(lab, concept) for concept in concepts]
    chosen = [half[0] for half in halves]
    means = scalpel.means(chosen, report)
    tried = np.array([rho]) if rho else dividing.RHOS
    owners = [dividing.divide(row, means, each, rule) for each in tried]
    usable = [not dividing.empty(owner, len(concepts)) for owner in owners]
    if not any(usable):
        idle = [concepts[k].name for k in dividing.empty(owners[-1], len(concepts))]
        advice = "choose a larger rho" if rho and rho < 1 else "choose other concepts"
        raise BadInput(f"With rho {tried[-1]:g} no input is left for {idle[0]}: {advice}.")
    values = scalpel.criteria(chosen, owners, usable, rule, report)
    best = int(np.nanargmax(values))
    names = tuple(concept.name for concept in concepts)
    edit = Edit(maker.path, channel, names, rule, float(tried[best]), owners[best])
    judged = [half[1] for half in halves]
    rows.apply(edit)
    judgement = scalpel.judge(edit, judged, report)
    added = list(range(len(rows.weight) - len(names), len(rows.weight)))
    return Incision(
        edit=edit,
        chosen=np.array([len(half) for half in chosen], np.int32),
        rhos=tried.astype(np.float32),
        criterion=values,
        places=np.array(rows.places(), np.int32)[[channel, *added]],
        shown=f"{maker.path}.split",
        **judgement,
    )


def divided(
    lab: DeviceLab,
    original: Original,
    maker: Maker,
    edit: Edit,
    before: Sequence[Edit],
    report: Report,
) -> PartResponses:
    """What the channel of an edit and its parts give on all pictures."""
    scalpel, _ = _scalpel(lab, original, maker, edit.channel, before)
    made = dividing.rows(scalpel.row, edit.owner, len(edit.concepts))[:-1]
    total = len(lab.images)
    found = scalpel.responses(np.arange(total), np.concatenate([scalpel.row[None], made]), report)
    mean, peak = (np.zeros((total, 1 + len(made)), np.float32) for _ in range(2))
    mean[found.ids], peak[found.ids] = found.positive, found.peak
    known = np.zeros(total, bool)
    known[found.ids] = True
    return PartResponses(edit.concepts, mean, peak, known)


def _scalpel(
    lab: DeviceLab, original: Original, maker: Maker, channel: int, before: Sequence[Edit]
) -> tuple[_Scalpel, Rows]:
    """What cuts a channel of a layer as earlier edits left it, and the layer's rows."""
    layer = original.layer(maker.path)
    _, rows = surgery.edit_layer(layer, before)
    row = surgery.as_numpy(rows, channel, maker.path)
    turn = original.makers.orientation(maker.path, int(rows.merge[:, channel].abs().argmax()))
    return _Scalpel(lab, original, maker, layer, rows, channel, row, turn), rows


class _Scalpel:
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
            parts = (turned.double().sum(2), turned.clamp(min=0).mean(2), turned.amax(2))
            return tuple(host(part) for part in parts)

        found: list[list[np.ndarray]] = [[], [], [], []]
        for kept, parts in passing(self.lab, pictures, read, "Responses", report):
            for into, part in zip(found, (kept, *parts), strict=True):
                into.append(part)
        return Responses(*(np.concatenate(each) for each in found))

    def judge(self, edit: Edit, groups: Sequence[np.ndarray], report: Report) -> dict[str, Any]:
        """The measures of an Incision, on pictures that did not choose it."""
        made = dividing.rows(self.row, edit.owner, len(groups))
        ranked = spread(len(self.lab.images), RANKED)
        wanted = np.unique(np.concatenate([ranked, *groups]))
        found = self.responses(wanted, np.concatenate([self.row[None], made]), report)
        places = {int(image): at for at, image in enumerate(found.ids)}
        own = [np.array([places[int(i)] for i in g if int(i) in places]) for g in groups]
        return measures(found, own) | references(self.lab.images, found, len(groups))


def _halves(lab: DeviceLab, concept: Concept) -> tuple[np.ndarray, np.ndarray]:
    """Pictures to choose by and pictures to judge by, no photograph in both."""
    sources = lab.images.sources[concept.pictures]
    seed = f"{lab.images.digest} {concept.name}"
    order = {
        source: blake2b(f"{seed} {source}".encode(), digest_size=8).digest()
        for source in np.unique(sources).tolist()
    }
    ranked = sorted(order, key=lambda source: order[source])[:EACH]
    halves = [np.isin(sources, ranked[side::2]) for side in (0, 1)]
    first, second = (concept.pictures[half] for half in halves)
    if not len(first) or not len(second):
        raise BadInput(
            f"'{concept.name}' has too few pictures: each concept needs two photographs at least, "
            "one to choose by and one to judge by."
        )
    return first, second
