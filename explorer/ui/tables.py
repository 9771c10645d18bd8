"""Tables with pictures, bars and rows that open, in one inline component."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from explorer.ui.gallery import component

_table = component("table")


@dataclass(frozen=True)
class Column:
    """``kind`` of cell: text, wide (a text that takes the room left), number (a text, set flush
    right), pictures ((source, name), ...), bar ({fill 0 to 1, text, colour}) or badge ({text, tone:
    good, busy or off}). ``minor`` ones are left out where there is little room."""

    id: str
    title: str
    kind: str = "text"
    sort: bool = False
    help: str = ""
    minor: bool = False


@dataclass(frozen=True)
class Row:
    """``cells`` by column id; ``id`` is what opening it tells (None: it does not open)."""

    cells: Mapping[str, Any]
    id: str | None = None
    title: str = ""


def table(
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    key: str,
    name: str,
    size: int = 40,
    sorted_by: tuple[str, bool] | None = None,
    on_open: Callable[[str], None] | None = None,
    on_sort: Callable[[str], None] | None = None,
) -> str | None:
    """Draw the rows. ``sorted_by`` is a column and whether it descends. ``on_sort`` runs before
    the rerun; the id of a row just opened is returned, so that a page can be left for another."""

    def sorted_now() -> None:
        wanted = st.session_state[key].get("sorted")
        if on_sort is not None and wanted:
            on_sort(wanted)

    def opened_now() -> None:
        wanted = st.session_state[key].get("opened")
        if on_open is not None and wanted:
            on_open(wanted)

    data: dict[str, Any] = {
        "columns": [
            {"id": each.id, "title": each.title, "kind": each.kind, "sort": each.sort}
            | ({"help": each.help} if each.help else {})
            | ({"minor": True} if each.minor else {})
            for each in columns
        ],
        "rows": [_row(row) for row in rows],
        "name": name,
        "size": size,
    }
    if sorted_by is not None:
        data["sorted"] = list(sorted_by)
    result = _table(key=key, data=data, on_sorted_change=sorted_now, on_opened_change=opened_now)
    return result.opened


def _row(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {"cells": dict(row.cells)}
    if row.id is not None:
        line["id"] = row.id
    if row.title:
        line["title"] = row.title
    return line
