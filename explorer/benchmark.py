"""Questions of the benchmark: channels planted in a layer, so that the right division is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from explorer import embedders
from explorer.browse import check_query
from explorer.keys import Question
from explorer.methods import variants
from explorer.methods.params import read_params
from explorer.records import (
    CHANCE,
    HALVES,
    JOINS,
    REGIMES,
    BadInput,
    Layer,
    Planting,
    Workspace,
)

MOST_SOURCES = 4
MOST_PAIRS = 1000


def planted(workspace: Workspace, asked: Planting, layer: Layer) -> Question:
    """Methods compared on channels planted in the layer; ``asked.judge`` is one found usable."""
    _check_planting(asked, layer)
    methods = [
        planted
        for text in dict.fromkeys((*asked.methods, CHANCE))
        for planted in _planted_methods(text, asked.lowers, layer)
    ]
    args = {
        "methods": methods,
        "pairs": asked.pairs,
        "regimes": sorted(set(asked.regimes)),
        "groups": sorted(set(asked.groups)),
        "mixes": sorted(set(asked.mixes), reverse=True),
        "join": asked.join,
        "judge": asked.judge,
        "weights": embedders.identity(asked.judge),
        "references": asdict(asked.references),
        "seed": asked.seed,
        "half": asked.half,
    }
    title = f"Comparing {len(methods)} methods on channels planted in {layer.name}"
    return Question("planted", workspace, layer.name, args, title)


def figure(study: Question, recipe: Mapping[str, Any], form: str) -> Question:
    """The figure of a question that ``planted`` made, by its validated recipe."""
    args = {"planted": study.args, "recipe": dict(recipe), "format": form}
    return replace(study, kind="planted_figure", args=args, title="Drawing the figure")


def _check_planting(asked: Planting, layer: Layer) -> None:
    """Raise BadInput unless it can be tried."""
    check_query(asked.references)
    if (asked.references.by, asked.references.range) != ("max", "top"):
        raise BadInput("Planted channels are judged on the pictures that make them fire most.")
    if not layer.rectified:
        raise BadInput(
            f"The channels of {layer.name} have no firing of their own that could be added: "
            f"choose a rectified layer{f', such as {layer.lower}' if layer.lower else ''}."
        )
    if not asked.regimes or not set(asked.regimes) <= set(REGIMES):
        raise BadInput(
            f"Sources are {' or '.join(REGIMES)}, not '{', '.join(asked.regimes)[:60]}'."
        )
    if not asked.groups or not all(2 <= groups <= MOST_SOURCES for groups in asked.groups):
        raise BadInput(f"Plant sums of 2 to {MOST_SOURCES} channels.")
    if not asked.mixes or not all(0 < mix <= 1 for mix in asked.mixes):
        raise BadInput("A mixing ratio lies above 0 and at most at 1, which is equal parts.")
    if asked.join not in JOINS:
        raise BadInput(f"Sources are joined {' or '.join(JOINS)} they are rectified.")
    if not 1 <= asked.pairs <= MOST_PAIRS or asked.seed < 0:
        raise BadInput(f"Plant 1 to {MOST_PAIRS} of each kind, with a seed from 0 on.")
    if asked.half not in ("all", *HALVES):
        raise BadInput(f"The half is one of all, {', '.join(HALVES)}, not '{asked.half[:40]}'.")


def _planted_methods(text: str, lowers: Sequence[str], layer: Layer) -> list[dict[str, Any]]:
    """What a planted channel is divided by: a method's canonical text, its parameters without k,
    and whether it can be told k (``known``) and choose it (``auto``), once for each lower layer."""
    method, given = variants.parse(text)
    if "k" in given:
        raise BadInput(f"The number of sources is known: leave k out of '{text[:60]}'.")
    fields = method.Params.__dataclass_fields__
    known = variants.takes_k(method)
    places = lowers if "lower" in fields and "lower" not in given else [given.get("lower", "")]
    made = []
    for lower in dict.fromkeys(places):
        params = {**given, "lower": lower or layer.lower} if "lower" in fields else given
        made.append(
            {
                "name": variants.text(method.name, {**params, "lower": ""}),
                "lower": params.get("lower", ""),
                "method": method.name,
                "version": method.version,
                "params": {
                    name: value
                    for name, value in asdict(read_params(method.Params, params)).items()
                    if name != "k"
                },
                "known": known,
                "auto": not known or fields["k"].metadata["min"] == 0,
            }
        )
    return made
