"""Plots of explanations: signed bars of terms, pictures by prediction, steps of a range."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from explorer.records import Explanation, ImageSet, RangeAnalysis
from explorer.ui.gallery import component, sources
from explorer.ui.plots import GREY, TONES

POINTS = 200
"""Pictures in the scatter; beyond, they are drawn evenly by rank."""
EXTREMES = 6
LEAST = "#ef4444"

_scatter = component("scatter")


def bars(found: Explanation, colour: str = TONES[0], most: float | None = None) -> go.Figure:
    """Terms by weight, positive to the right; ``most`` fixes the scale."""
    terms = found.terms[::-1]
    weights = [weight for _, weight in terms]
    figure = go.Figure(
        go.Bar(
            x=weights,
            y=[escape(_short(name), quote=False) for name, _ in terms],
            orientation="h",
            marker={"color": [colour if weight >= 0 else LEAST for weight in weights]},
            text=[f"{weight:+.2g}" for weight in weights],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.3g}<extra></extra>",
        )
    )
    most = most or max((abs(weight) for weight in weights), default=1.0)
    low = min([0.0, *weights])
    room = 0.2 * (most - low)  # for the numbers at the ends of the bars
    figure.update_layout(
        height=46 + 30 * max(len(terms), 1),
        margin={"l": 4, "r": 12, "t": 4, "b": 4},
        bargap=0.3,
        font={"family": "Inter, sans-serif", "size": 12},
    )
    figure.update_xaxes(
        fixedrange=True, range=[low - 1.5 * room if low < 0 else 0, most + room], zeroline=True
    )
    figure.update_yaxes(fixedrange=True, automargin=True, type="category")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"


def extremes(found: Explanation) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the test pictures said too high and too low, the worst first."""
    off = found.predicted - found.actual
    order = np.argsort(-off, kind="stable")
    return order[:EXTREMES][off[order[:EXTREMES]] > 0], order[::-1][:EXTREMES]


def scatter(
    ws: str, images: ImageSet, found: Explanation, on_click: Callable[[int], None], key: str
) -> int:
    """Predicted against actual values of test pictures; how many are drawn."""
    over, under = extremes(found)
    order = np.argsort(found.actual, kind="stable")
    some = order[np.unique(np.linspace(0, len(order) - 1, POINTS).round().astype(int))]
    shown = np.array(sorted({*some.tolist(), *over.tolist(), *under.tolist()}))
    shown = shown[np.argsort(found.actual[shown], kind="stable")]
    marks = dict.fromkeys(under.tolist(), "under") | dict.fromkeys(over.tolist(), "over")
    pictures = sources(ws, found.index[shown], size=128)
    points: list[dict[str, Any]] = []
    for position, source in zip(shown.tolist(), pictures, strict=True):
        image = int(found.index[position])
        x, y = float(found.predicted[position]), float(found.actual[position])
        name = images.label(image) or images.paths[image]
        title = f"{name}: predicted {x:.2f}, actual {y:.2f}"
        point = {"id": str(image), "x": x, "y": y, "src": source, "title": title}
        points.append(point | ({"extreme": marks[position]} if position in marks else {}))

    def clicked() -> None:
        picked = st.session_state[key].get("clicked")
        if picked is not None:
            on_click(int(picked))

    data = {"points": points, "name": "Predicted against actual activation of unseen pictures"}
    _scatter(key=key, data=data, on_clicked_change=clicked)
    return len(shown)


def ranges(found: RangeAnalysis) -> go.Figure:
    """Pictures (logarithmic) and share of the effect for each step of the neuron's range."""
    centres = (found.edges[:-1] + found.edges[1:]) / 2
    width = float(found.edges[1] - found.edges[0])
    figure = go.Figure()
    figure.add_bar(
        x=centres,
        y=found.counts,
        width=width * 0.9,
        name="pictures",
        marker={"color": GREY},
        hovertemplate="activation %{x:.2f}<br>%{y} pictures<extra></extra>",
    )
    figure.add_scatter(
        x=centres,
        y=found.share,
        yaxis="y2",
        name="share of the effect",
        mode="lines+markers",
        line={"color": TONES[0], "width": 2},
        hovertemplate="%{y:.1%} of the effect<extra></extra>",
    )
    figure.update_layout(
        height=210,
        margin={"l": 4, "r": 4, "t": 8, "b": 4},
        font={"family": "Inter, sans-serif", "size": 11},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        yaxis={"type": "log", "dtick": 1, "exponentformat": "none", "fixedrange": True},
        yaxis2={
            "overlaying": "y",
            "side": "right",
            "tickmode": "auto",
            "nticks": 5,
            "tickformat": ".0%",
            "rangemode": "tozero",
            "showgrid": False,
            "fixedrange": True,
        },
    )
    figure.update_xaxes(title={"text": "activation", "standoff": 4}, fixedrange=True)
    return figure
