"""Interactive plots that compare: agreement, distances, dendrogram, boxes, curves over k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from explorer.records import Distances, EvaluationRow
from explorer.ui.plots import GREY, TONES, layout, letter, tone

POINTS = 1200
"""Pairs that are drawn; the correlation is of all."""
JOINS = 40
"""Joins of a dendrogram, from the highest down, that can be clicked."""
SCALE = ((0.0, "rgba(127,127,127,0.06)"), (1.0, "#6366f1"))


def matrix(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], low: float, height: int
) -> go.Figure:
    """Numbers f64[R,C] up to 1 as a shaded table; NaN is left blank."""
    text = [["" if np.isnan(each) else f"{each:.2f}" for each in line] for line in values]
    return shaded(np.where(np.isnan(values), low, values), text, rows, columns, low, height)


def shaded(
    values: np.ndarray,
    text: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    low: float,
    height: int,
) -> go.Figure:
    """A table of words on shades of the values f64[R,C] from ``low`` to 1."""
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=list(columns),
            y=list(rows),
            text=text,
            hovertemplate="%{y} · %{x}: %{text}<extra></extra>",
            colorscale=SCALE,
            zmin=low,
            zmax=1,
            showscale=False,
            xgap=2,
            ygap=2,
        )
    )
    for at, line in enumerate(text):
        for across, words in enumerate(line):  # in the theme's own ink, where the shade is faint
            strong = values[at, across] > (1 + low) / 2
            look = {"font": {"color": "white"}} if strong else {}
            figure.add_annotation(x=across, y=at, text=words, showarrow=False, **look)
    figure.update_layout(**layout(height))
    figure.update_xaxes(side="top", type="category", fixedrange=True, showgrid=False, ticks="")
    figure.update_yaxes(
        autorange="reversed", type="category", fixedrange=True, showgrid=False, ticks=""
    )
    return figure


def distances(data: Distances, method: str, judge: str) -> go.Figure:
    """How far apart pairs of references are for the method and for the judge."""
    figure = go.Figure()
    drawn = np.random.default_rng(0).permutation(len(data.same))[:POINTS]
    for same, name, colour in (
        (False, "in two virtual neurons", GREY),
        (True, "in one", TONES[0]),
    ):
        here = drawn[data.same[drawn] == same]
        figure.add_scattergl(
            x=data.judge[here],
            y=data.method[here],
            mode="markers",
            name=name,
            marker={"color": colour, "size": 4, "opacity": 0.6},
            hovertemplate="%{x:.3f} · %{y:.3f}<extra></extra>",
        )
    figure.update_layout(**layout(280), legend=_above())
    figure.update_xaxes(title={"text": f"distance for {judge}", "standoff": 4})
    figure.update_yaxes(title={"text": f"distance for {method}", "standoff": 4})
    return figure


def dendrogram(tree: np.ndarray, cut: float, labels: np.ndarray, unit: float) -> go.Figure:
    """Ward's tree f64[K-1,4] over references with ``labels`` i64[K] (-1: outliers), and its cut.
    Heights are drawn in units of ``unit``; the joins carry theirs for a click."""
    across, heights, owners = _placed(tree, labels, cut)
    lines: dict[int, tuple[list[float | None], list[float | None]]] = {}
    count = len(tree) + 1
    for join, (left, right, height, _) in enumerate(tree):
        owner = owners[count + join] if height <= cut else -2
        x, y = lines.setdefault(owner, ([], []))
        one, two = int(left), int(right)
        x += [across[one], across[one], across[two], across[two], None]
        y += [each / unit for each in (heights[one], height, height, heights[two])] + [None]
    figure = go.Figure()
    for owner, (x, y) in sorted(lines.items()):
        line = {"color": tone(owner), "width": 1.4}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip")
    top = np.argsort(-tree[:, 2], kind="stable")[:JOINS]
    figure.add_scatter(
        x=[across[count + join] for join in top],
        y=tree[top, 2] / unit,
        customdata=tree[top, 2] / unit,
        text=[f"{int(tree[join, 3])} references" for join in top],
        mode="markers",
        marker={"size": 9, "color": [GREY if tree[j, 2] > cut else TONES[0] for j in top]},
        hovertemplate="%{text} joined at %{y:.3f}: click to part them<extra></extra>",
    )
    figure.add_hline(y=cut / unit, line={"dash": "dash", "width": 1.2, "color": TONES[3]})
    figure.update_layout(**layout(260), showlegend=False, dragmode=False)
    figure.update_xaxes(visible=False, fixedrange=True)
    figure.update_yaxes(rangemode="tozero", fixedrange=True, title={"text": "separation"})
    return figure


def _placed(
    tree: np.ndarray, labels: np.ndarray, cut: float
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Where each of the 2K-1 nodes stands: across, height, and the virtual neuron most of it
    belongs to."""
    count = len(tree) + 1
    across, heights = np.zeros(2 * count - 1), np.zeros(2 * count - 1)
    heights[count:] = tree[:, 2]
    leaves: list[int] = []
    waiting = [2 * count - 2]
    while waiting:  # left to right; a tree of like pictures is too deep for recursion
        node = waiting.pop()
        if node < count:
            leaves.append(node)
        else:
            waiting += [int(tree[node - count, 1]), int(tree[node - count, 0])]
    across[leaves] = np.arange(count)
    votes = np.zeros((2 * count - 1, int(labels.max(initial=0)) + 2))
    votes[np.arange(count), labels] = 1  # the last column counts outliers
    for join, (left, right, _, _) in enumerate(tree):
        one, two = int(left), int(right)
        across[count + join] = (across[one] + across[two]) / 2
        votes[count + join] = votes[one] + votes[two]
    best = votes.argmax(axis=1)
    outliers = votes.shape[1] - 1
    return across, heights, [-1 if each == outliers else int(each) for each in best]


def boxes(values: Mapping[str, np.ndarray], names: Sequence[str], measure: str) -> go.Figure:
    """One box per method over neurons; every neuron is a point with its name."""
    figure = go.Figure()
    for number, (method, each) in enumerate(values.items()):
        figure.add_box(
            y=each,
            name=method,
            text=list(names),
            boxpoints="all",
            jitter=0.5,
            pointpos=0,
            marker={"size": 3.5, "color": TONES[number % len(TONES)], "opacity": 0.6},
            line={"width": 1.4},
            boxmean=True,
            hovertemplate="%{text}: %{y:.3f}<extra>%{x}</extra>",
        )
    figure.update_layout(**layout(320), showlegend=False)
    figure.update_yaxes(title={"text": measure, "standoff": 4}, zeroline=True)
    return figure


def over_k(rows: Sequence[EvaluationRow], titles: Mapping[str, str]) -> go.Figure:
    """The mean gap of each method over k, with standard errors; a method that finds k itself is one
    point at its mean."""
    figure = go.Figure()
    for number, (method, title) in enumerate(titles.items()):
        mine = [row for row in rows if row.method == method]
        error = {"type": "data", "array": [row.gap_se for row in mine], "width": 4, "thickness": 1}
        colour = TONES[number % len(TONES)]
        figure.add_scatter(
            x=[row.k for row in mine],
            y=[row.gap for row in mine],
            error_y=error,
            mode="lines+markers",
            name=title,
            line={"color": colour, "width": 1.6},
            marker={"size": 7, "symbol": "diamond" if mine and mine[0].own else "circle"},
            hovertemplate="k = %{x:.3g}: %{y:.4f}<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(**layout(300), legend=_above())
    figure.update_xaxes(title={"text": "virtual neurons", "standoff": 4}, dtick=1)
    figure.update_yaxes(title={"text": "gap", "standoff": 4}, zeroline=True)
    return figure


def correlations(rows: Sequence[EvaluationRow], titles: Mapping[str, str]) -> go.Figure:
    """The correlation of each method's distances with the judge's, and its null (a line)."""
    chosen = [next(row for row in rows if row.method == method) for method in titles]
    figure = go.Figure(
        go.Bar(
            x=list(titles.values()),
            y=[row.correlation for row in chosen],
            error_y={"type": "data", "array": [row.correlation_se for row in chosen]}
            | {"width": 4, "color": "rgba(127, 127, 127, 0.9)"},
            marker={"color": [TONES[each % len(TONES)] for each in range(len(chosen))]},
            name="correlation",
            hovertemplate="%{x}: %{y:.3f}<extra></extra>",
        )
    )
    figure.add_scatter(
        x=list(titles.values()),
        y=[row.correlation_null for row in chosen],
        mode="markers",
        name="null",
        marker={"symbol": "line-ew", "size": 26, "line": {"width": 2.5, "color": TONES[7]}},
        hovertemplate="null %{y:.3f}<extra></extra>",
    )
    figure.update_layout(**layout(300), legend=_above(), showlegend=True)
    figure.update_yaxes(title={"text": "correlation", "standoff": 4}, zeroline=True)
    return figure


def letters(count: int) -> list[str]:
    """Names of the first virtual neurons."""
    return [letter(virtual) for virtual in range(count)]


def _above() -> dict[str, object]:
    return {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
