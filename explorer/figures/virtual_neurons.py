"""The virtual neurons of one split, side by side: pictures, shares, scores and provenance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.figures.page import INK, QUIET, WIDTHS, Page, fitting, leading, wrap
from explorer.figures.recipe import (
    check_choice,
    check_object,
    check_text,
    check_whole,
    read_references,
)
from explorer.images.thumbnails import STYLES
from explorer.records import (
    Alignment,
    BadInput,
    ImageSet,
    NetworkInfo,
    Neuron,
    ReferenceQuery,
    Score,
    Split,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULTS: Mapping[str, Any] = {
    "workspace": None,
    "neuron": None,
    "method": "pure",
    "params": {},
    "references": asdict(ReferenceQuery()),
    "columns": 4,
    "rows": 3,
    "width": "double",
    "style": "crop",
    "embedder": "",
}
"""Keys of the recipe. ``columns`` and ``rows`` of pictures per virtual neuron; ``embedder`` ""
is the workspace's own."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c6d31")
"""One per virtual neuron, told apart by colour-blind readers too (Okabe and Ito, and two more)."""

PALE = "#e6e8eb"
PANELS_ABREAST = {"single": 2, "double": 4}
LARGEST_PICTURE = 1.0
GUTTER = 0.16
GAP = 0.025
BAR = 0.03
TITLE_SIZE, BODY_SIZE, SMALL_SIZE = 7.5, 6.0, 5.0


@dataclass(frozen=True)
class VirtualNeuron:
    """One panel. ``pictures``: u8[h,w,3] each, strongest first. ``size``: how many references
    it has; ``share``: its part of the strength of all, 0 to 1; ``activation``: mean activation
    of the neuron over its references."""

    pictures: tuple[np.ndarray, ...]
    size: int
    share: float
    activation: float


@dataclass(frozen=True)
class Material:
    """What the figure shows. ``references``: how many there are; ``scores`` by their label;
    ``provenance``: every version and digest needed to make it again; ``credits`` of the
    pictures."""

    panels: tuple[VirtualNeuron, ...]
    references: int
    scores: Mapping[str, Score]
    provenance: tuple[str, ...]
    credits: str


def check(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with its references complete; BadInput for a value that cannot be drawn."""
    for key in ("workspace", "neuron", "method", "embedder"):
        check_text(recipe, key)
    Neuron.parse(recipe["workspace"], recipe["neuron"])
    check_object(recipe, "params")
    check_whole(recipe, "columns", 1, 12)
    check_whole(recipe, "rows", 1, 12)
    check_choice(recipe, "width", tuple(WIDTHS))
    check_choice(recipe, "style", STYLES)
    return {**recipe, "references": read_references(recipe, "references")}


def gather(
    recipe: Mapping[str, Any],
    split: Split,
    network: NetworkInfo,
    images: ImageSet,
    alignment: Alignment | None,
    picture: Callable[[int], np.ndarray],
) -> Material:
    """The material of a figure from stored answers.

    ``recipe`` is validated. ``picture`` renders reference number n (0 to K-1) as u8[h,w,3] in
    the recipe's style; only the pictures shown are asked for.
    """
    wanted = recipe["columns"] * recipe["rows"]
    total = float(split.strength.sum()) or 1.0
    panels = []
    for v, strength in enumerate(split.strength):
        members = np.flatnonzero(split.labels == v)
        shown = members[np.argsort(-strength[members], kind="stable")][:wanted]
        values = split.references.value[members]
        panels.append(
            VirtualNeuron(
                pictures=tuple(picture(int(n)) for n in shown),
                size=len(members),
                share=float(strength.sum()) / total,
                activation=float(values.mean()) if len(members) else math.nan,
            )
        )
    return Material(
        panels=tuple(panels),
        references=split.strength.shape[1],
        scores=_scores(split, alignment),
        provenance=_provenance(split, network, images, alignment),
        credits=images.credits,
    )


def draw(recipe: Mapping[str, Any], material: Material, form: str) -> Figure:
    """Panels in rows, then scores, provenance and credits; see Page for ``form``."""
    if not material.panels:
        raise BadInput("There is no virtual neuron to draw: choose another neuron or method.")
    width = WIDTHS[recipe["width"]]
    grid = _Grid.of(len(material.panels), recipe, width)
    scores = wrap(
        [f"{label} {_score(score)}" for label, score in material.scores.items()], BODY_SIZE, width
    )
    small = wrap(material.provenance, SMALL_SIZE, width)
    if material.credits:
        small += wrap([material.credits], SMALL_SIZE, width)
    top = grid.height
    foot = top + len(scores) * leading(BODY_SIZE) + 0.03
    page = Page(width, foot + len(small) * leading(SMALL_SIZE) + 0.03, form)
    facts = _facts(material.panels, material.references, grid.panel)
    for number, panel in enumerate(material.panels):
        _draw_panel(page, grid, number, panel, facts[number])
    page.lines(scores, 0.0, top, BODY_SIZE, INK)
    page.lines(small, 0.0, foot, SMALL_SIZE, QUIET)
    return page.figure


@dataclass(frozen=True)
class _Grid:
    """Where panels lie: ``abreast`` per row, each ``panel`` inches wide with ``side``-inch
    pictures, under a ``head`` of text; ``height`` of all, in inches."""

    columns: int
    abreast: int
    panel: float
    side: float
    head: float
    stride: float
    height: float

    @classmethod
    def of(cls, panels: int, recipe: Mapping[str, Any], width: float) -> _Grid:
        rows = math.ceil(panels / PANELS_ABREAST[recipe["width"]])
        abreast = math.ceil(panels / rows)
        columns, lines = recipe["columns"], recipe["rows"]
        panel = (width - GUTTER * (abreast - 1)) / abreast
        side = min((panel - GAP * (columns - 1)) / columns, LARGEST_PICTURE)
        head = leading(TITLE_SIZE) + leading(BODY_SIZE) + BAR + 0.06
        stride = head + lines * (side + GAP) + 0.08
        return cls(columns, abreast, panel, side, head, stride, rows * stride)


def _draw_panel(page: Page, grid: _Grid, number: int, panel: VirtualNeuron, facts: str) -> None:
    left = (number % grid.abreast) * (grid.panel + GUTTER)
    top = (number // grid.abreast) * grid.stride
    colour = COLOURS[number % len(COLOURS)]
    width = grid.columns * (grid.side + GAP) - GAP
    page.text(chr(ord("a") + number), left, top, TITLE_SIZE, color=INK, weight="bold")
    page.text(f"Virtual neuron {number + 1}", left + 0.13, top, TITLE_SIZE, color=INK)
    top += leading(TITLE_SIZE)
    page.text(facts, left, top, BODY_SIZE, color=QUIET)
    top += leading(BODY_SIZE) + 0.01
    page.bar(left, top, width, BAR, PALE)
    page.bar(left, top, width * min(panel.share, 1.0), BAR, colour)
    top += BAR + 0.05
    for place, picture in enumerate(panel.pictures):
        row, column = divmod(place, grid.columns)
        step = grid.side + GAP
        corner = (left + column * step, top + row * step)
        page.bar(*corner, grid.side, grid.side, PALE)
        page.picture(picture, *corner, grid.side)


def _facts(panels: Sequence[VirtualNeuron], total: int, width: float) -> Sequence[str]:
    """One line for each panel, all worded alike, as fully as the narrowest allows."""
    wordings = ("{} of {} references ({}) · mean activation {}", "{} of {} ({}) · mean {}")
    facts = [
        (panel.size, total, f"{panel.share:.0%}", _number(panel.activation)) for panel in panels
    ]
    return fitting(
        [[words.format(*each) for each in facts] for words in wordings], BODY_SIZE, width
    )


def _scores(split: Split, alignment: Alignment | None) -> dict[str, Score]:
    scores = {
        name: Score(split.scores[name], split.scores.get(f"null_{name}", math.nan), math.nan, 0)
        for name in ("silhouette", "stability")
        if name in split.scores
    }
    if alignment is not None:
        scores[f"gap by {alignment.title}"] = alignment.gap
        scores["correlation"] = alignment.correlation
    return scores


def _score(score: Score) -> str:
    if not math.isfinite(score.value):
        return "not defined"
    if not math.isfinite(score.null):
        return _fixed(score.value)
    spread = f" ± {_fixed(score.null_sd)}" if math.isfinite(score.null_sd) else ""
    return f"{_fixed(score.value)} (null {_fixed(score.null)}{spread})"


def _fixed(value: float) -> str:
    """Three decimals, and no minus before a zero."""
    return f"{round(value, 3) + 0.0:.3f}"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "not defined"
    return f"{value:#.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _provenance(
    split: Split, network: NetworkInfo, images: ImageSet, alignment: Alignment | None
) -> tuple[str, ...]:
    query = split.references.query
    params = ", ".join(f"{key} {value}" for key, value in split.params.items() if key != "seed")
    parts = [
        f"neuron {split.neuron.address} of {network.source}",
        f"weights {network.weights} ({network.digest[:12]})",
        f"images {images.name} ({images.digest[:12]}, {len(images)} pictures)",
        f"references {query.range} {query.count} by {query.by}"
        + (f", seed {query.seed}" if query.range == "random" else ""),
        f"{split.method}@{split.version}" + (f": {params}" if params else ""),
        f"seed {split.seed}",
    ]
    if alignment is not None:
        parts.append(f"embedder {alignment.title} ({alignment.embedder})")
    return tuple(parts)
