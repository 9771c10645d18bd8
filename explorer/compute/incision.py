"""Divide one channel and judge the division on pictures that did not choose it
(arXiv 2504.12939, generalised: see ``docs/surgery.md``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from explorer.compute.device_lab import DeviceLab
from explorer.compute.scalpel import Scalpel, taken_up
from explorer.lab import Report
from explorer.networks import dividing, surgery
from explorer.networks.original import Original
from explorer.records import BadInput, Edit, Incision, Maker, PartResponses

EACH = 200
"""Pictures of a concept that are used at most, half to choose and half to judge."""
WIDEST = 5000
"""Inputs of a channel that least squares take at most: they need its square in memory."""


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
    scalpel, rows = taken_up(lab, original, maker, channel, before)
    drawn = [_drawn(lab, concept) for concept in concepts]
    tried = np.array([rho]) if rho else dividing.RHOS
    choose = _fitted if rule == dividing.FITTED else _masked
    choice = choose(scalpel, drawn, concepts, tried, rule, report)
    names = tuple(concept.name for concept in concepts)
    edit = Edit(maker.path, channel, names, rule, choice.rho, choice.owner, choice.parts)
    rows.apply(edit)
    judgement = scalpel.judge(edit, [each.judged for each in drawn], report)
    added = list(range(len(rows.weight) - len(names), len(rows.weight)))
    return Incision(
        edit=edit,
        chosen=np.array([len(each.chosen) for each in drawn], np.int32),
        rhos=tried.astype(np.float32),
        criterion=choice.values,
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
    scalpel, _ = taken_up(lab, original, maker, edit.channel, before)
    made = surgery.parts_of(scalpel.row, edit)[:-1]
    total = len(lab.images)
    found = scalpel.responses(np.arange(total), np.concatenate([scalpel.row[None], made]), report)
    mean, peak = (np.zeros((total, 1 + len(made)), np.float32) for _ in range(2))
    mean[found.ids], peak[found.ids] = found.positive, found.peak
    known = np.zeros(total, bool)
    known[found.ids] = True
    return PartResponses(edit.concepts, mean, peak, known)


@dataclass(frozen=True)
class _Drawn:
    """A concept's pictures: those that choose, also in two ``folds``, and those that judge."""

    chosen: np.ndarray
    folds: tuple[np.ndarray, np.ndarray]
    judged: np.ndarray


@dataclass(frozen=True)
class _Choice:
    """How to divide, and the criterion ``values`` f32[G] of all that was tried."""

    values: np.ndarray
    rho: float
    owner: np.ndarray
    parts: np.ndarray


def _masked(
    scalpel: Scalpel,
    drawn: Sequence[_Drawn],
    concepts: Sequence[Concept],
    tried: np.ndarray,
    rule: str,
    report: Report,
) -> _Choice:
    """Input units given to concepts; rho by the criterion on the pictures that choose."""
    chosen = [each.chosen for each in drawn]
    means = scalpel.means(chosen, report)
    owners = [dividing.divide(scalpel.row, means, each, rule) for each in tried]
    usable = [not dividing.empty(owner, len(concepts)) for owner in owners]
    if not any(usable):
        idle = [concepts[k].name for k in dividing.empty(owners[-1], len(concepts))]
        given = len(tried) == 1 and tried[0] < 1
        advice = "choose a larger rho" if given else "choose other concepts"
        raise BadInput(f"With rho {tried[-1]:g} no input is left for {idle[0]}: {advice}.")
    values = scalpel.criteria(chosen, owners, usable, rule, report)
    best = int(np.nanargmax(values))
    return _Choice(values, float(tried[best]), owners[best], np.zeros((0, 0), np.float32))


def _fitted(
    scalpel: Scalpel,
    drawn: Sequence[_Drawn],
    concepts: Sequence[Concept],
    tried: np.ndarray,
    rule: str,
    report: Report,
) -> _Choice:
    """The numbers divided by least squares; rho by what is misplaced in one half of the
    pictures that choose under the parts fitted to the other half."""
    if len(scalpel.row) > WIDEST:
        raise BadInput(
            f"The {rule} rule works on up to {WIDEST:,} inputs per channel, and {scalpel.path} "
            f"has {len(scalpel.row):,}: choose another rule, such as balanced."
        )
    folds = [scalpel.moments([each.folds[side] for each in drawn], report) for side in (0, 1)]
    (first, seen), (second, more) = folds
    silent = np.flatnonzero(np.minimum(seen, more) == 0)
    if silent.size:
        raise BadInput(
            f"The channel fires on too few pictures of {concepts[silent[0]].name} for the "
            f"{rule} rule: choose another concept or another rule, such as balanced."
        )
    report(0.9, "Fitting the parts")
    values = np.full(1, np.nan, np.float32)
    if len(tried) > 1:
        values = dividing.crossed(scalpel.row, first, second, tried)
    rho = float(tried[np.nanargmax(values) if len(tried) > 1 else 0])
    share = (seen / (seen + more))[:, None, None]
    every = share * first + (1 - share) * second
    parts = dividing.exact(dividing.fitted(scalpel.row, every, rho), scalpel.row)
    return _Choice(values, rho, dividing.holders(parts), parts)


def _drawn(lab: DeviceLab, concept: Concept) -> _Drawn:
    """Pictures to choose by and pictures to judge by, no photograph in both: quarters of a shuffle
    that the contents of the image set fix."""
    sources = lab.images.sources[concept.pictures]
    seed = f"{lab.images.digest} {concept.name}"
    order = {
        source: blake2b(f"{seed} {source}".encode(), digest_size=8).digest()
        for source in np.unique(sources).tolist()
    }
    ranked = sorted(order, key=lambda source: order[source])[:EACH]
    one, two, three, four = (
        concept.pictures[np.isin(sources, ranked[quarter::4])] for quarter in range(4)
    )
    chosen, judged = np.concatenate([one, three]), np.concatenate([two, four])
    if not len(chosen) or not len(judged):
        raise BadInput(
            f"'{concept.name}' has too few pictures: each concept needs two photographs at least, "
            "one to choose by and one to judge by."
        )
    return _Drawn(chosen, (one, three), judged)
