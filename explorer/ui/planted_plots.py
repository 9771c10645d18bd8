"""Interactive plots of planted channels: how well methods divide them, how many parts they see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from explorer.records import CEILING, CHANCE, CLEAN, Chosen, PlantedRow
from explorer.ui.charts import shaded
from explorer.ui.plots import GREY, TONES, layout

Way = tuple[str, str]
"""A method and its lower layer."""

STEP, FRAME, LINE = 38, 70, 30
"""Pixels of each method, around all of them, and of each line of a table."""
SHIFT = 0.14
"""How far above and below its line a method's two marks stand."""


def level(groups: int, mix: float) -> str:
    """Such as "2 sources" or "3 sources, 1 : 0.5"."""
    return f"{groups} sources" + (f", 1 : {mix:g}" if mix != 1 else "")


def means(rows: Sequence[PlantedRow], titles: Mapping[Way, str]) -> go.Figure:
    """Mean adjusted Rand index of each method with its standard error, at the known k and at the
    chosen one, between the lines of null and ceiling."""
    figure = go.Figure()
    marks = [row for row in rows if row.method not in (CEILING, CHANCE)]
    names = [titles[row.method, row.lower] for row in marks]
    for name, values, errors, shift, look in (
        ("k known", "ari", "ari_se", -SHIFT, {"color": TONES[0], "symbol": "circle"}),
        ("k chosen", "auto_ari", "auto_ari_se", SHIFT, {"color": TONES[1], "symbol": "diamond"}),
    ):
        spread = np.nan_to_num([getattr(row, errors) for row in marks])
        figure.add_scatter(
            x=[getattr(row, values) for row in marks],
            y=[at + shift for at in range(len(marks))],
            error_x={"type": "data", "array": spread, "width": 3, "thickness": 1.2},
            mode="markers",
            name=name,
            text=names,
            marker={"size": 8, **look},
            hovertemplate="%{text}: %{x:.3f}<extra>" + name + "</extra>",
        )
    for row in rows:
        if row.method in (CEILING, CHANCE) and np.isfinite(row.ari):
            dash = "dash" if row.method == CEILING else "dot"
            figure.add_vline(x=row.ari, line={"dash": dash, "width": 1.4, "color": TONES[7]})
    figure.update_layout(**layout(FRAME + STEP * max(len(marks), 1)), showlegend=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    figure.update_xaxes(range=[-0.1, 1.02], fixedrange=True, zeroline=False, gridcolor=GREY)
    figure.update_yaxes(
        range=[len(marks) - 0.5, -0.5],
        tickvals=list(range(len(marks))),
        ticktext=[name.replace(" · ", "<br>").replace(", ", "<br>") for name in names],
        fixedrange=True,
        automargin=True,
        showgrid=False,
        zeroline=False,
    )
    return figure


def chosen(counts: Sequence[Chosen]) -> go.Figure:
    """How often each number of parts was chosen, by what was planted; the right one is framed."""
    counts = sorted(counts, key=lambda each: each.regime != CLEAN)
    shares = np.array([np.array(each.counts) / max(sum(each.counts), 1) for each in counts])
    text = [[f"{each:.0%}" if each else "" for each in line] for line in shares]
    columns = [str(k + 1) for k in range(shares.shape[1])]
    figure = shaded(
        shares, text, [_kind(each) for each in counts], columns, 0, 36 + LINE * len(counts)
    )
    for at, each in enumerate(counts):
        right = each.groups - 1
        corners = {"x0": right - 0.48, "x1": right + 0.48, "y0": at - 0.47, "y1": at + 0.47}
        figure.add_shape(**corners, line={"width": 1.6, "color": TONES[2]})
    return figure


def _kind(each: Chosen) -> str:
    if each.regime == CLEAN:
        return f"clean ({sum(each.counts)})"
    return f"{each.regime}, {level(each.groups, each.mix)} ({sum(each.counts)})"
