"""A neuron's histogram and the map of its references; the colours of virtual neurons everywhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import streamlit as st

from explorer.records import Histogram
from explorer.ui.gallery import component

_bars = component("bars")
_plane = component("plane")

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


def histogram(data: Histogram, threshold: float, *, key: str, name: str) -> None:
    """Counts on a logarithmic scale; the part from ``threshold`` on, where the references
    lie, is coloured."""
    drawn = {
        "edges": data.edges.tolist(),
        "counts": data.counts.tolist(),
        "threshold": threshold if np.isfinite(threshold) else None,
        "name": name,
    }
    _bars(key=key, data=drawn)


def plane(
    points: np.ndarray,
    labels: np.ndarray,
    titles: Sequence[str],
    chosen: Collection[int],
    marked: int | None,
    *,
    key: str,
    name: str,
    on_choose: Callable[[list[int]], None],
) -> None:
    """The references f32[K,2] on a plane, coloured by virtual neuron i64[K]. Those in
    ``chosen`` (all, if empty) are bright; ``marked`` has a ring. ``on_choose`` gets the positions
    that were drawn around, before the rerun."""

    def drawn_around() -> None:
        positions = st.session_state[key].get("chosen")
        if positions is not None:
            on_choose([int(each) for each in positions])

    drawn = [
        {
            "x": float(x),
            "y": float(y),
            "colour": tone(int(label)),
            "title": title,
            "dim": bool(chosen) and at not in chosen,
            "marked": at == marked,
        }
        for at, ((x, y), label, title) in enumerate(zip(points, labels, titles, strict=True))
    ]
    shown = sorted(set(labels.tolist()), key=lambda each: each if each >= 0 else len(labels))
    groups = [
        {"name": letter(each) if each >= 0 else "outliers", "colour": tone(each)} for each in shown
    ]
    data = {"points": drawn, "groups": groups, "name": name}
    _plane(key=key, data=data, on_chosen_change=drawn_around)


def layout(height: int) -> dict[str, object]:
    """What every chart by Plotly has in common."""
    return {
        "height": height,
        "margin": {"l": 4, "r": 4, "t": 8, "b": 4},
        "bargap": 0.05,
        "font": {"family": "Inter, sans-serif", "size": 11},
    }
