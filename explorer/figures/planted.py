"""Methods judged on planted channels: how well each finds the division, and how many parts it says
there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from explorer.figures import planted_plots, planted_tables
from explorer.figures.page import INK, QUIET, WIDTHS, Page, leading, wrap
from explorer.figures.recipe import (
    check_choice,
    check_list,
    check_text,
    check_whole,
    read_references,
)
from explorer.records import (
    CEILING,
    CHANCE,
    BadInput,
    ImageSet,
    NetworkInfo,
    Planted,
    Planting,
    ReferenceQuery,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULTS: Mapping[str, Any] = {
    "workspace": None,
    **{
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(Planting("")).items()
    },
    "layer": None,
    "width": "double",
}
"""Keys of the recipe: those of a Planting, its workspace and the width."""

LISTS: Mapping[str, tuple[type, ...]] = {
    "methods": (str,),
    "lowers": (str,),
    "regimes": (str,),
    "groups": (int,),
    "mixes": (int, float),
}
LARGEST = 2**31 - 1

TITLE_SIZE, BODY_SIZE, SMALL_SIZE = 7.5, 6.0, 5.0


@dataclass(frozen=True)
class Material:
    """What the figure shows, and ``provenance``, all that is needed to make it again."""

    found: Planted
    provenance: tuple[str, ...]


def check(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with its references complete; BadInput for a value of the wrong kind. Whether it
    can be planted is for others to say."""
    for key in ("workspace", "layer", "join", "judge", "half"):
        check_text(recipe, key)
    for key, kinds in LISTS.items():
        check_list(recipe, key, *kinds)
    for key in ("pairs", "seed"):
        check_whole(recipe, key, 0, LARGEST)
    check_choice(recipe, "width", tuple(WIDTHS))
    return {**recipe, "references": read_references(recipe, "references")}


def planting(recipe: Mapping[str, Any]) -> Planting:
    """What a validated recipe compares."""
    return Planting(
        layer=recipe["layer"],
        pairs=recipe["pairs"],
        methods=tuple(recipe["methods"]),
        lowers=tuple(recipe["lowers"]),
        regimes=tuple(recipe["regimes"]),
        groups=tuple(recipe["groups"]),
        mixes=tuple(map(float, recipe["mixes"])),
        join=recipe["join"],
        judge=recipe["judge"],
        references=ReferenceQuery(**recipe["references"]),
        seed=recipe["seed"],
        half=recipe["half"],
    )


def gather(
    found: Planted, network: NetworkInfo, images: ImageSet, versions: Sequence[str]
) -> Material:
    """The material of a figure; ``versions`` are of the methods, such as "pure@1"."""
    query = found.references
    return Material(
        found,
        (
            f"channels planted in {found.layer} of {network.source}",
            f"weights {network.weights} ({network.digest[:12]})",
            f"images {images.name} ({images.digest[:12]}, {len(images)} pictures)",
            f"references {query.range} {query.count} by {query.by}",
            f"sources told far from near by {found.judge}",
            f"sources joined {found.join} they are rectified",
            f"{found.half} channels" if found.half == "all" else f"{found.half} half",
            f"seed {found.seed}",
            *versions,
        ),
    )


def draw(recipe: Mapping[str, Any], material: Material, form: str) -> Figure:
    """Plots for each kind of planted channel, tables of the number of parts, and what is needed
    to make them again; see Page for ``form``."""
    found, width = material.found, recipe["width"]
    levels = list(dict.fromkeys((row.groups, row.mix) for row in found.rows))
    ways = [
        way
        for way in dict.fromkeys(map(planted_plots.way_of, found.rows))
        if way[0] not in (CEILING, CHANCE)
    ]
    if not ways:
        raise BadInput("There is no method to draw: name some.")
    title = leading(TITLE_SIZE)
    top = title + 2 * leading(BODY_SIZE) + 0.08
    block = planted_plots.height(ways)
    below = top + len(levels) * block
    notes = below + title + 0.04 + planted_tables.height(found, ways, width)
    words = wrap(_notes(found), BODY_SIZE, WIDTHS[width])
    small = wrap(material.provenance, SMALL_SIZE, WIDTHS[width])
    foot = notes + len(words) * leading(BODY_SIZE) + 0.04
    page = Page(WIDTHS[width], foot + len(small) * leading(SMALL_SIZE) + 0.03, form)
    page.text("Adjusted Rand index with the truth", 0.0, 0.0, TITLE_SIZE, color=INK, weight="bold")
    planted_plots.legend(page, title)
    for number, level in enumerate(levels):
        planted_plots.plots(page, found, level, ways, top + number * block, width)
    page.text("Number of parts chosen, %", 0.0, below, TITLE_SIZE, color=INK, weight="bold")
    planted_tables.tables(page, found, ways, below + title + 0.04, width)
    page.lines(words, 0.0, notes, BODY_SIZE, INK)
    page.lines(small, 0.0, foot, SMALL_SIZE, QUIET)
    return page.figure


def _notes(found: Planted) -> list[str]:
    return [
        f"Sums of clean channels of {found.layer}; means over n of them ± standard error",
        "1: divided by which source drives a reference; 0: on average by chance",
        "ceiling: k-means on the sources, which no method sees",
        "tables: what was planted (how many) by the number of parts chosen, the right one framed",
    ]
