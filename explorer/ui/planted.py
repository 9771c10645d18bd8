"""The Compare page for planted channels: the form, the table and plots, what to keep."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import streamlit as st

from explorer import exports
from explorer.benchmark import MOST_PAIRS, MOST_SOURCES
from explorer.records import (
    CEILING,
    CHANCE,
    HALVES,
    JOINS,
    Layer,
    Planted,
    PlantedRow,
    Planting,
    ReferenceQuery,
    Status,
)
from explorer.ui import address, choices, figure, pickers, planted_plots
from explorer.ui.keeping import keep
from explorer.ui.session import asker, backend, plain, section
from explorer.ui.tables import Column, Row, table
from explorer.ui.waiting import waiting

PAIRS, REFERENCES = 20, 50
MOST_METHODS = 12
MIXES = ("1", "0.7", "0.5")
NAMES = {CEILING: "Sources themselves (ceiling)", CHANCE: "Labels by lot (null)"}
STATIC = {"displayModeBar": False}

T = TypeVar("T", int, float)


def show(ws: str, layer: Layer) -> None:
    """The page."""
    asked = _form(ws, layer)
    wanted = backend().settings.read_only or st.session_state.get("planting") == asked
    with section():
        studies = backend().studies
        ask = studies.planted if wanted else studies.known_planted
        answer = ask(ws, asked, asker())
        if isinstance(answer, Status):
            waiting(answer)
        elif answer is None:
            _start(asked)
        else:
            _results(ws, asked, answer)


def command(ws: str, asked: Planting) -> str:
    """The command that makes the same comparison."""
    words = ["python", "-m", "explorer", "planted", asked.layer, "--workspace", ws]
    words += ["--pairs", str(asked.pairs), "--references", str(asked.references.count)]
    words += ["--methods", *asked.methods]
    words += ["--groups", *map(str, asked.groups), "--mix", *(f"{mix:g}" for mix in asked.mixes)]
    words += ["--join", asked.join, "--half", asked.half, "--seed", str(asked.seed)]
    words += ["--judge", asked.judge] if asked.judge else []
    return shlex.join([*words, "--json"])


def _form(ws: str, layer: Layer) -> Planting:
    wide = st.grid(3, min_column_width=290)
    with wide.cell(column_span=2):
        names = choices.methods(ws, MOST_METHODS)
    with wide.cell():
        judge = choices.judge(ws, "The embedder that says which sources are far apart or near")
    narrow = st.grid(7, min_column_width=128)
    with narrow.cell():
        pairs = pickers.whole("pairs", "Pairs", PAIRS, 1, MOST_PAIRS, "Channels of each kind")
    with narrow.cell():
        count = pickers.whole("count", "References", REFERENCES, 5, 1000, "Of each channel")
    with narrow.cell():
        groups = pickers.several(
            "sources",
            "Sources",
            [str(number) for number in range(2, MOST_SOURCES + 1)],
            ["2"],
            pills=True,
            help="Channels of the layer in each sum",
        )
    with narrow.cell():
        about = "Weight of every source but the first: 1 is even, less is harder"
        mixes = pickers.several("mix", "Mixing ratio", MIXES, ["1"], pills=True, help=about)
    with narrow.cell():
        about = "after: each source is rectified first; before: one more row of the layer's weights"
        join = pickers.select("join", "Joined", JOINS, JOINS[0], help=about)
    with narrow.cell():
        about = "Choose settings by one half of the channels and report the other"
        half = pickers.select("half", "Half", ("all", *HALVES), "all", help=about)
    with narrow.cell():
        draw = pickers.whole("draw", "Draw", 0, 0, 2**31 - 1, "Seed of what is planted")
    return Planting(
        layer=layer.name,
        pairs=pairs,
        methods=tuple(names),
        groups=_numbers(groups, int, "sources"),
        mixes=_numbers(mixes, float, "mixing ratio"),
        join=join,
        judge=judge,
        references=ReferenceQuery(count=count),
        seed=draw,
        half=half,
    )


def _numbers(texts: Sequence[str], kind: Callable[[str], T], what: str) -> tuple[T, ...]:
    found = set()
    for text in texts:
        try:
            found.add(kind(text))
        except ValueError:
            address.note(f"The link's {what} '{plain(text, 60)}' is no number and was left out.")
    return tuple(sorted(found))


def _start(asked: Planting) -> None:
    with st.container(border=True):
        st.markdown(
            f"**{asked.pairs} of each kind, {len(asked.methods)} methods.** Sums of clean channels "
            "are planted in the layer as further channels, so that the right division is known, "
            "and every method divides them like any other. It runs in the background, about a "
            "second for each channel and method after the layer is scanned; each division is kept, "
            "so it goes on where it was."
        )
        if st.button("Plant and compare", type="primary", icon=":material/play_arrow:"):
            st.session_state["planting"] = asked
            st.rerun()


def _results(ws: str, asked: Planting, found: Planted) -> None:
    levels = list(dict.fromkeys((row.groups, row.mix) for row in found.rows))
    titles = {str(at): planted_plots.level(*each) for at, each in enumerate(levels)}
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader(f"Planted in {plain(found.layer)}", anchor=False)
        st.space("stretch")
        at = pickers.segments("level", "Kind", titles, "0") if len(levels) > 1 else "0"
        with st.popover("Figure", type="primary", icon=":material/image:"):
            figure.offered({"figure": "planted", "workspace": ws, **_plain(asked)})
    here = levels[int(at)]
    rows = [row for row in found.rows if (row.groups, row.mix) == here]
    titles = _titles(found)
    _table(found, rows, titles)
    halves = st.grid(2, min_column_width=320)
    for regime in dict.fromkeys(row.regime for row in rows):
        with halves.cell(), st.container(border=True):
            mine = [row for row in rows if row.regime == regime]
            n = max(row.n for row in mine)
            st.subheader(f"{regime.title()} apart, n = {n}", anchor=False)
            chart = planted_plots.means(mine, titles)
            alt = f"Adjusted Rand index by method, {regime}"
            st.plotly_chart(chart, config=STATIC, key=f"means-{regime}", alt=alt)
    st.caption(
        "Adjusted Rand index, mean ± standard error. Dashed: the ceiling, k-means on the sources, "
        "which no method sees; a method that knows places can pass it. Dotted: the null, by lot."
    )
    _chosen(found, titles)
    _keep(ws, asked, found)


def _titles(found: Planted) -> dict[planted_plots.Way, str]:
    """What each method is called; its lower layer is named where there are several."""
    ways = list(dict.fromkeys((row.method, row.lower) for row in found.rows))
    several = len({lower for _, lower in ways if lower}) > 1
    return {
        (method, lower): (NAMES.get(method) or choices.title_of(method))
        + (f" · {lower}" if several and lower else "")
        for method, lower in ways
    }


def _plain(asked: Planting) -> dict[str, Any]:
    """A recipe's keys, as JSON holds them."""
    return dict(json.loads(json.dumps(asdict(asked))))


def _table(
    found: Planted, rows: Sequence[PlantedRow], titles: Mapping[planted_plots.Way, str]
) -> None:
    regimes = list(dict.fromkeys(row.regime for row in rows))
    lines = []
    for way, title in titles.items():
        mine = [row for row in rows if (row.method, row.lower) == way]
        cells = {"method": title}
        for row in mine:
            regime = row.regime
            cells[regime] = _with_error(row.ari, row.ari_se, row.n)
            cells[f"{regime}_auto"] = _with_error(row.auto_ari, row.auto_ari_se, row.auto_n)
            right = row.auto_right
            cells[f"{regime}_right"] = f"{right:.0%}" if right == right else "—"
        cells["n"] = " · ".join(str(max(row.n, row.auto_n)) for row in mine)
        lines.append(Row(cells))
    columns = [Column("method", "Method", "wide")]
    for regime in regimes:
        columns += [
            Column(regime, f"{regime.title()} ↑", "number", help="k known"),
            Column(f"{regime}_auto", f"{regime.title()}, auto k ↑", "number", minor=True),
            Column(f"{regime}_right", "Right k ↑", "number", minor=True, help="k chosen rightly"),
        ]
    about = f"Planted channels: {', '.join(regimes)}"
    columns.append(Column("n", "n", "number", minor=True, help=about))
    with st.container(border=True):
        table(columns, lines, key="planted", name="Methods on planted channels")
        possible = "; ".join(f"{number} {kind}" for kind, number in found.possible.items())
        lowers = ", ".join(dict.fromkeys(row.lower for row in rows if row.lower))
        traced = f" Relevance is traced to {plain(lowers)}." if lowers else ""
        st.caption(
            "Adjusted Rand index with the truth, which source drives each reference: 1 for the "
            "same division, 0 on average by chance (the null is measured in its row); mean ± "
            f"standard error. At least {plain(possible)} are possible here. Judge: "
            f"{plain(backend().studies.title(found.judge))}.{traced}"
        )


def _with_error(value: float, error: float, n: int) -> str:
    if not n or value != value:
        return "—"
    text = f"{value:.2f}".replace("-0.00", "0.00")
    return f"{text} ± {error:.2f}" if error == error else text


def _chosen(found: Planted, names: Mapping[planted_plots.Way, str]) -> None:
    ways = list(dict.fromkeys((each.method, each.lower) for each in found.confusion))
    if not ways:
        return
    titles = {str(at): names[way] for at, way in enumerate(ways)}
    with st.container(border=True):
        st.subheader("How many parts were chosen", anchor=False)
        at = pickers.segments("pair", "Method", titles, "0", pills=True)
        mine = [each for each in found.confusion if (each.method, each.lower) == ways[int(at)]]
        chart = planted_plots.chosen(mine)
        st.plotly_chart(chart, config=STATIC, key="chosen", alt="Parts chosen by what was planted")
        st.caption("In percent of the channels of each row; framed: the right number.")


def _keep(ws: str, asked: Planting, found: Planted) -> None:
    """Downloads, and the command that makes the same numbers."""
    files = {
        "Table": ("table.csv", exports.to_csv([asdict(row) for row in found.rows])),
        "Every channel": ("channels.csv", exports.to_csv(exports.plants(found))),
        "Everything": ("planted.json", exports.to_json(exports.planted(found, True))),
    }
    keep(command(ws, asked), files)
