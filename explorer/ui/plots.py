"""Interactive plots: a neuron's histogram and the map of its references."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import plotly.graph_objects as go

from explorer.records import Histogram

TONES = ("#6366f1", "#f59e0b", "#10b981", "#ef4444", "#0ea5e9", "#eab308", "#a855f7", "#64748b")
"""Colours of the virtual neurons, told apart in light and dark."""
BADGES = ("primary", "orange", "green", "red", "blue", "yellow", "violet", "gray")
"""Their names among Streamlit's colours."""
GREY = "rgba(140, 146, 160, 0.55)"


def tone(virtual: int) -> str:
    """The colour of a virtual neuron; grey for outliers (-1)."""
    return TONES[virtual % len(TONES)] if virtual >= 0 else GREY


def letter(virtual: int) -> str:
    """The name of a virtual neuron: A, B, ..."""
    return chr(ord("A") + virtual) if virtual >= 0 else "–"


def histogram(data: Histogram, threshold: float) -> go.Figure:
    """Counts on a logarithmic scale; the part from ``threshold`` on, where the references
    lie, is coloured."""
    centres = (data.edges[:-1] + data.edges[1:]) / 2
    figure = go.Figure(
        go.Bar(
            x=centres,
            y=data.counts,
            width=np.diff(data.edges) * 0.9,
            marker={
                "color": [TONES[0] if edge >= threshold else GREY for edge in data.edges[1:]],
                "line": {"width": 0},
            },
            hovertemplate="activation %{x:.2f}<br>%{y} pictures<extra></extra>",
        )
    )
    figure.update_layout(**layout(170))
    figure.update_xaxes(title={"text": "activation", "standoff": 4}, fixedrange=True)
    figure.update_yaxes(type="log", dtick=1, fixedrange=True, exponentformat="none")
    return figure


def plane(
    points: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    chosen: Collection[int],
    marked: int | None,
) -> go.Figure:
    """The references f32[K,2] on a plane, coloured by virtual neuron i64[K]. Those in
    ``chosen`` (all, if empty) are bright; ``marked`` has a ring."""
    figure = go.Figure()
    for virtual in sorted(set(labels.tolist()), key=lambda each: each if each >= 0 else 99):
        here = np.flatnonzero(labels == virtual)
        title = letter(virtual) if virtual >= 0 else "outliers"
        figure.add_scatter(
            x=points[here, 0],
            y=points[here, 1],
            mode="markers",
            name=title,
            customdata=here,
            text=[names[each] for each in here],
            hovertemplate=f"%{{text}}<extra>{title}</extra>",
            selectedpoints=[at for at, each in enumerate(here) if each in chosen]
            if chosen
            else None,
            marker={
                "color": tone(virtual),
                "size": [13 if each == marked else 8 for each in here],
                "line": {"width": [3 if each == marked else 0.5 for each in here]}
                | {"color": "rgba(127,127,127,0.9)"},
            },
            unselected={"marker": {"opacity": 0.2}},
        )
    figure.update_layout(**layout(300), dragmode="lasso", showlegend=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False)
    return figure


def layout(height: int) -> dict[str, object]:
    """What every plot has in common."""
    return {
        "height": height,
        "margin": {"l": 4, "r": 4, "t": 8, "b": 4},
        "bargap": 0.05,
        "font": {"family": "Inter, sans-serif", "size": 11},
    }
