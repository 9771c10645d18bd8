"""Galleries: up to a hundred thumbnails in one inline component, and the thumbnails themselves."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from explorer.records import Crops, ImageSet, Status
from explorer.ui.session import asker, backend

ASSETS = Path(__file__).parent / "assets"
SIZES = {"small": 64, "medium": 76, "large": 130}
"""Smallest width of a card in CSS pixels."""


def component(name: str) -> Any:
    """The inline component whose script and style lie in ``assets``."""
    return st.components.v2.component(
        f"explorer_{name}",
        html=f'<div class="{name}"></div>',
        css=(ASSETS / f"{name}.css").read_text(encoding="utf-8"),
        js=(ASSETS / f"{name}.js").read_text(encoding="utf-8"),
    )


_gallery = component("gallery")
_picked = component("picked")


@dataclass(frozen=True)
class Card:
    """One picture of a gallery: ``fill`` 0 to 1 is the length of its bar, ``colour`` a CSS
    colour for its mark, ``rank`` the number on it ("" for none), ``waits`` whether it is shown
    until another takes its place."""

    id: int
    source: str
    title: str
    label: str | None = None
    value: str = ""
    fill: float | None = None
    rank: str = ""
    colour: str = ""
    waits: bool = False


def gallery(
    cards: Iterable[Card],
    *,
    key: str,
    name: str,
    size: str = "medium",
    on_click: Callable[[int], None] | None = None,
) -> None:
    """Draw the cards; ``on_click`` gets the id of the one that was picked, before the rerun."""

    def clicked() -> None:
        picked = st.session_state[key].get("clicked")
        if on_click is not None and picked is not None:
            on_click(int(picked))

    data = {
        "items": [_item(card) for card in cards],
        "name": name,
        "size": SIZES[size],
        "clickable": on_click is not None,
    }
    _gallery(key=key, data=data, on_clicked_change=clicked)


def mark(image: int | None) -> None:
    """Show in every gallery of the page that this picture is picked; None for none."""
    _picked(key="picked-picture", data={"id": None if image is None else str(image)})


def _item(card: Card) -> dict[str, Any]:
    item: dict[str, Any] = {"id": str(card.id), "src": card.source, "title": card.title}
    if card.label is not None:
        item |= {"label": card.label, "value": card.value}
    if card.fill is not None:
        item["fill"] = round(min(max(card.fill, 0.0), 1.0), 3)
    more = (("rank", card.rank), ("colour", card.colour), ("waits", card.waits))
    return item | {name: value for name, value in more if value}


def strips(
    ws: str, images: ImageSet, lines: Mapping[int, Sequence[int]]
) -> dict[int, list[tuple[str, str]]]:
    """Small pictures for table cells: (source, label) for each image of each line, asked for all
    at once; ids below zero are padding."""
    wanted = sorted({int(image) for line in lines.values() for image in line if image >= 0})
    found = dict(zip(wanted, sources(ws, wanted, size=64), strict=True))
    return {
        name: [(found[int(image)], images.label(int(image))) for image in line if image >= 0]
        for name, line in lines.items()
    }


def sources(
    ws: str,
    index: Sequence[int] | np.ndarray,
    style: str = "whole",
    crops: Crops | None = None,
    size: int = 128,
) -> list[str]:
    """Data URIs of the pictures, in order; empty texts while they cannot be had.

    A style other than "whole" needs ``crops`` of these pictures: without them they are whole.
    """
    if crops is None:
        style = "whole"
    wanted = [int(image) for image in index]
    answer = backend().thumbnails(ws, wanted, asker(), style, crops, size)
    if isinstance(answer, Status):
        return [""] * len(wanted)
    return [f"data:image/webp;base64,{base64.b64encode(data).decode()}" for data in answer]
