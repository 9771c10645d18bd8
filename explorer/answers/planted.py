"""Answers about planted channels: which there are, and how well methods divide them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from explorer import figures, planting
from explorer.answers.room import Room
from explorer.compute import clustering
from explorer.compute.device_lab import DeviceLab
from explorer.compute.planted_lab import PlantedLab
from explorer.compute.plants import plants as find_plants
from explorer.figures.planted import gather
from explorer.keys import Identity, Question, query_from
from explorer.lab import Lab, Report
from explorer.methods.clustered import LARGEST_K
from explorer.methods.params import read_params
from explorer.methods.registry import method_named
from explorer.records import (
    CEILING,
    CLEAN,
    HALVES,
    BadInput,
    Chosen,
    Divided,
    FigureFile,
    NoCluster,
    Plant,
    Planted,
    PlantedRow,
    Plants,
    References,
    Sum,
)
from explorer.scores.planted import average, confusion, recovery

SHARED = ("references", "judge", "weights", "regimes", "groups", "mixes", "join", "pairs", "seed")
"""The arguments on which it depends what is planted."""
THOROUGH = 100
"""Sums of each kind for which candidates are tried where those for fewer do not suffice."""


def plants(room: Room, question: Question, identity: Identity, report: Report) -> Plants:
    """What is planted in the layer. Raises BadInput, saying how many there could be, where that is
    fewer than asked for."""
    lab, args, layer = room.lab(question, identity), question.args, question.subject
    wanted, seed = args["pairs"], args["seed"]
    count = query_from(args["references"]).count
    views = _views(lab, layer, args["judge"], _between(report, 0.0, 0.5, "Embedding pictures"))
    found = planting.sources(lab.scan(layer, report), views, count)
    now = _between(report, 0.5, 0.75, "Planting")
    possible, chosen = _choose(lab, layer, found, args, wanted, now)
    if min(possible.values()) < wanted < THOROUGH:  # what a refusal counts can then be had
        possible, chosen = _choose(lab, layer, found, args, THOROUGH, now)
    if min(possible.values()) < wanted:
        listed = "; ".join(f"{number} ({kind})" for kind, number in possible.items())
        raise BadInput(
            f"From {len(lab.images)} pictures not {wanted} of each kind can be planted in {layer}, "
            f"but {listed}: ask for fewer, for fewer references, or use more pictures."
        )
    sums = [each.sum for each in chosen]
    more = [planting.mixed(each, mix) for mix in args["mixes"] if mix != 1 for each in sums]
    more += planting.untouched(sums, wanted, seed)
    others = _planted(lab, layer, more, count, _between(report, 0.75, 1.0, "Planting"))
    kept = [each for each in (*chosen, *others) if each.sum.mix in args["mixes"]]
    return Plants(tuple(each for each in kept if planting.varied(each)), possible)


def _choose(
    lab: DeviceLab,
    layer: str,
    found: planting.Sources,
    args: Mapping[str, Any],
    tried: int,
    report: Report,
) -> tuple[dict[str, int], list[Plant]]:
    """How many sums of each kind can be had of candidates enough for ``tried`` of them, and the
    sums, of each kind the number that is asked for at most."""
    count, seed, join = query_from(args["references"]).count, args["seed"], args["join"]
    kinds = [(regime, groups) for regime in args["regimes"] for groups in args["groups"]]
    sums = [
        each
        for kind in kinds
        for each in planting.candidates(found, *kind, count, tried, seed, join)
    ]
    made = _planted(lab, layer, sums, count, report)
    balanced = [each for each in made if planting.balanced(each, count)]
    possible, chosen = {}, []
    for regime, groups in kinds:
        alike = [p for p in balanced if (p.sum.regime, len(p.sum.sources)) == (regime, groups)]
        kept = planting.separate(alike)
        possible[f"{regime}, {groups} sources"] = len(kept)
        chosen += kept[: args["pairs"]]
    return possible, chosen


def planted(room: Room, question: Question, identity: Identity, report: Report) -> Planted:
    """Methods compared on planted channels, each of which is stored by itself."""
    lab, args = room.lab(question, identity), question.args
    before = Counter(lab.clock.seconds)
    shared = {name: args[name] for name in SHARED}
    about = replace(question, kind="plants", args=shared)
    now = _between(report, 0.0, 0.3, "Planting")
    found = room.kept(about, identity, Plants, lambda: plants(room, about, identity, now))
    kept = _half(found.plants, args["half"])
    specs = {each["params"].get("embedder") or args["judge"] for each in args["methods"]}
    now = _between(report, 0.3, 0.4, "Embedding pictures")
    views = {
        spec: _views(lab, question.subject, spec, now) for spec in (args["judge"], *sorted(specs))
    }
    results: list[list[Divided]] = []
    for at, plant in enumerate(kept):
        what = f"{at + 1} of {len(kept)} planted channels"
        now = _between(report, 0.4 + 0.6 * at / len(kept), 0.4 + 0.6 * (at + 1) / len(kept), what)
        own = PlantedLab(lab, question.subject, plant, views)
        results.append([_ceiling(own, plant, args["seed"], now)])
        for method in args["methods"]:
            part = replace(question, kind="divided", args=_divided_args(args, method, plant))
            made = partial(_divided, own, plant, part.args, now)
            results[-1].append(room.kept(part, identity, Divided, made))
    spent = {name: lab.clock.seconds[name] - before[name] for name in lab.clock.seconds}
    return _summary(question, kept, results, found.possible, spent)


def planted_figure(
    room: Room, question: Question, identity: Identity, report: Report
) -> FigureFile:
    """A figure of methods compared, as a file."""
    args = question.args
    about = replace(question, kind="planted", args=args["planted"])
    found = room.kept(about, identity, Planted, lambda: planted(room, about, identity, report))
    report(0.9, "Drawing")
    lab = room.lab(question, identity)
    methods = args["planted"]["methods"]
    versions = dict.fromkeys(f"{each['method']}@{each['version']}" for each in methods)
    material = gather(found, lab.network, lab.images, list(versions))
    return figures.draw(args["recipe"], material, args["format"])


def _divided_args(
    args: Mapping[str, Any], method: Mapping[str, Any], plant: Plant
) -> dict[str, Any]:
    """All on which the division of one planted channel by one method depends."""
    shared = {name: args[name] for name in ("references", "judge", "weights")}
    return {**shared, "method": method, "sum": asdict(plant.sum)}


def _divided(lab: PlantedLab, plant: Plant, args: Mapping[str, Any], report: Report) -> Divided:
    """One planted channel by one method."""
    references = lab.references(lab.neuron, query_from(args["references"]), report)
    groups = len(plant.sum.sources)
    known = _split(lab, references, args["method"], groups, report) if groups > 1 else None
    auto = _split(lab, references, args["method"], 0, report)
    return Divided(
        known=float("nan") if known is None else recovery(plant.truth, known),
        auto=float("nan") if auto is None else recovery(plant.truth, auto),
        chosen=0 if auto is None else int(auto.max(initial=-1)) + 1,
    )


def _ceiling(lab: PlantedLab, plant: Plant, seed: int, report: Report) -> Divided:
    """What k-means makes of the sources themselves, leaked."""
    mean = lab.scan(lab.neuron.layer, report).mean[np.array(plant.sum.sources)][:, plant.index]
    rows = np.asarray(mean, np.float64).T * np.array(plant.sum.weights)
    labels, _, _ = clustering.kmeans(rows, len(plant.sum.sources), seed)
    return Divided(recovery(plant.truth, labels), float("nan"), 0)


def _split(
    lab: Lab, references: References, asked: Mapping[str, Any], k: int, report: Report
) -> np.ndarray | None:
    """Labels i64[K] by a method at ``k`` (0: its own choice); None where it cannot be asked that,
    or finds nothing to divide."""
    if not asked["auto" if k == 0 else "known"]:
        return None
    method = method_named(asked["method"])
    params = {**asked["params"], "k": k} if asked["known"] else asked["params"]
    try:
        found = method.split(lab, references, read_params(method.Params, params), report)
    except NoCluster:
        return None
    return found.labels


def _summary(
    question: Question,
    plants: Sequence[Plant],
    results: Sequence[Sequence[Divided]],
    possible: Mapping[str, int],
    seconds: Mapping[str, float],
) -> Planted:
    args = question.args
    named = [(CEILING, ""), *((each["name"], each["lower"]) for each in args["methods"])]
    known, auto, chosen = (
        np.array([[getattr(one, name) for one in each] for each in results])
        for name in ("known", "auto", "chosen")
    )
    kinds = [(each.sum.regime, len(each.sum.sources), each.sum.mix) for each in plants]
    rows, values, counts = [], [], []
    for at, (method, lower) in enumerate(named):
        for kind in dict.fromkeys(kinds):
            here = np.array([each == kind for each in kinds])
            picked = chosen[here, at]
            if picked.any():
                numbers = confusion(np.full(len(picked), kind[1]), picked, LARGEST_K)[1][0]
                counts.append(Chosen(method, lower, *kind, tuple(numbers.tolist())))
            if kind[0] != CLEAN:
                rows.append(_row(method, lower, kind, known[here, at], auto[here, at], picked))
                values.append([np.where(here, each[:, at], np.nan) for each in (known, auto)])
    stacked = np.array(values, np.float32)
    return Planted(
        layer=question.subject,
        references=query_from(args["references"]),
        seed=args["seed"],
        half=args["half"],
        join=args["join"],
        judge=args["judge"],
        rows=tuple(rows),
        confusion=tuple(counts),
        sums=tuple(each.sum for each in plants),
        known=stacked[:, 0],
        auto=stacked[:, 1],
        possible=possible,
        seconds={name: spent for name, spent in seconds.items() if spent > 0},
    )


def _row(
    method: str,
    lower: str,
    kind: tuple[str, int, float],
    known: np.ndarray,
    auto: np.ndarray,
    chosen: np.ndarray,
) -> PlantedRow:
    at_known, at_auto = average(known), average(auto)
    tried = chosen > 0
    return PlantedRow(
        method,
        lower,
        *kind,
        ari=at_known.value,
        ari_se=at_known.se,
        n=at_known.n,
        auto_ari=at_auto.value,
        auto_ari_se=at_auto.se,
        auto_n=at_auto.n,
        auto_right=float((chosen[tried] == kind[1]).mean()) if tried.any() else float("nan"),
    )


def _planted(
    lab: DeviceLab, layer: str, sums: Sequence[Sum], count: int, report: Report
) -> tuple[Plant, ...]:
    with lab.clock.stage("planting"):
        return find_plants(lab.model, lab.images, layer, sums, count, report)


def _half(plants: Sequence[Plant], half: str) -> list[Plant]:
    """Every second of each kind: choices made on one half are tested on the other."""
    seen: Counter[tuple[str, int, float]] = Counter()
    kept = []
    for plant in plants:
        kind = plant.sum.regime, len(plant.sum.sources), plant.sum.mix
        if half == "all" or seen[kind] % 2 == HALVES.index(half):
            kept.append(plant)
        seen[kind] += 1
    return kept


def _views(lab: DeviceLab, layer: str, embedder: str, report: Report) -> np.ndarray:
    """f32[N,E]: every picture as an embedder sees it, of unit length; zero where it is broken."""
    valid = np.flatnonzero(lab.scan(layer, report).valid)
    rows = lab.embed(embedder, valid, None, report)
    views = np.zeros((len(lab.images), rows.shape[1]), np.float32)
    views[valid] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return views


def _between(report: Report, start: float, end: float, what: str) -> Report:
    """Report on a part of the whole; begins by saying so, which lets others go first."""

    def within(fraction: float, message: str) -> None:
        report(start + (end - start) * fraction, message or what)

    within(0.0, what)
    return within


KINDS = {"plants": plants, "planted": planted, "planted_figure": planted_figure}
