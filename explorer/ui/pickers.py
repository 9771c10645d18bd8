"""Widgets that read and write the address: each shows its value and returns it, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import streamlit as st

from explorer.methods.registry import METHODS
from explorer.records import Layer
from explorer.ui import address

RANGES = {"top": "Top", "quantiles": "Quantiles", "random": "Random"}
VIEWS = {"crop": "Crop", "heat": "Heat map", "mask": "Mask", "whole": "Whole"}
MEASURES = {"max": "Maximum", "mean": "Mean"}


def bind(name: str, value: Any, forget: Sequence[str] = ()) -> dict[str, Any]:
    """Arguments that tie a widget to a name of the address, showing ``value`` now. A change
    also forgets the names in ``forget``."""
    key = f"pick-{name}"
    st.session_state[key] = value
    return {"key": key, "on_change": address.put_widget, "args": (name, key, forget)}


def select(
    name: str,
    label: str,
    options: Sequence[str],
    default: str,
    titles: Mapping[str, str] | None = None,
    forget: Sequence[str] = (),
    **more: Any,
) -> str:
    """A list to pick one option from."""
    value = address.choice(name, default, options, label.lower())
    shown = (lambda each: titles.get(each, each)) if titles else str
    st.selectbox(label, options, format_func=shown, **bind(name, value, forget), **more)
    return value


def segments(
    name: str,
    label: str,
    titles: Mapping[str, str],
    default: str,
    *,
    pills: bool = False,
    forget: Sequence[str] = (),
) -> str:
    """A row of options, one of them chosen."""
    value = address.choice(name, default, list(titles), label.lower())
    row = st.pills if pills else st.segmented_control
    row(
        label,
        list(titles),
        format_func=lambda each: titles[each],
        required=True,
        label_visibility="collapsed",
        **bind(name, value, forget),
    )
    return value


def several(
    name: str,
    label: str,
    options: Sequence[str],
    default: Sequence[str],
    titles: Mapping[str, str] | None = None,
    forget: Sequence[str] = (),
    *,
    pills: bool = False,
    **more: Any,
) -> list[str]:
    """A list, or a row, to pick several options from. They lie in the address with spaces
    between; what is not among ``options`` is kept, for whoever asks to check."""
    key = f"pick-{name}"
    chosen = list(dict.fromkeys(address.text(name, " ".join(default)).split()))
    st.session_state[key] = chosen
    row = partial(st.pills, selection_mode="multi") if pills else st.multiselect
    row(
        label,
        list(dict.fromkeys([*options, *chosen])),
        format_func=lambda each: (titles or {}).get(each, each),
        key=key,
        on_change=lambda: address.put(
            **dict.fromkeys(forget), **{name: " ".join(st.session_state[key])}
        ),
        **more,
    )
    return chosen


def whole(name: str, label: str, default: int, low: int, high: int, help: str) -> int:
    """A field for a whole number."""
    value = address.integer(name, default, low, high, label.lower())
    st.number_input(label, low, high, help=help, **bind(name, value))
    return default if value is None else value


BUTTON, FEWEST, MOST = 32, 5, 7
"""Pixels that the number of a page takes, and how many are shown at most. Streamlit hides numbers
unless there is room for the fewest and two arrows, however few there are."""


def page_number(pages: int, name: str = "page") -> int:
    """The page of a list, 1 to ``pages``; draws nothing when there is only one."""
    value = address.integer(name, 1, 1, max(pages, 1), "page") or 1
    if pages > 1:
        width = BUTTON * (min(max(pages, FEWEST), MOST) + 2)
        st.pagination(pages, max_visible_pages=MOST, width=width, **bind(name, value))
    return value


def splitting(layer: Layer) -> tuple[str, dict[str, Any]]:
    """The method, and those of its parameters that differ from their defaults. How many
    virtual neurons to make is in view; the rest of the form, made from the method's own
    description, opens."""
    titles = {name: each.title for name, each in METHODS.items()}
    method = address.choice("method", "pure", list(titles), "method")
    options = {each.name: each for each in fields(METHODS[method].Params)}
    values = {}
    if "k" in options:
        values["k"] = _count(options.pop("k"))
    with st.popover(titles[method], icon=":material/tune:"):
        select("method", "Method", list(titles), "pure", titles)
        st.caption(METHODS[method].summary)
        for each in options.values():
            values[each.name] = _param(each, layer)
    defaults = {each.name: each.default for each in fields(METHODS[method].Params)}
    given = {name: value for name, value in values.items() if value != defaults[name]}
    return method, given


def _count(each: Any) -> int:
    low, high = int(each.metadata["min"]), int(each.metadata["max"])
    titles = {str(number): str(number) if number else "Auto" for number in range(low, high + 1)}
    return int(segments("k", each.metadata["label"], titles, str(each.default)))


def _param(each: Any, layer: Layer) -> Any:
    rule, name = each.metadata, each.name
    label, help = rule["label"], rule["help"]
    if name == "lower":
        titles = {"": f"{layer.lower or 'none'} (default)"}
        return select(name, label, ["", *layer.lowers], "", titles, help=help)
    if rule["choices"]:
        options = [str(option) for option in rule["choices"]]
        text = select(name, label, options, str(each.default), help=help)
        return rule["choices"][options.index(text)]
    if isinstance(each.default, str):
        return _words(each, label, help)
    if isinstance(each.default, bool):
        return _switch(each, label, help)
    if isinstance(each.default, int) and rule["max"] is not None and rule["max"] <= 12:
        low, high = int(rule["min"]), int(rule["max"])
        options = [str(number) for number in range(low, high + 1)]
        return int(select(name, label, options, str(each.default), help=help))
    return _number(each, label, help)


def _switch(each: Any, label: str, help: str) -> bool:
    value = address.choice(each.name, str(each.default), ["False", "True"], label.lower())
    st.toggle(label, help=help, **bind(each.name, value == "True"))
    return value == "True"


def _words(each: Any, label: str, help: str) -> str:
    value = address.text(each.name, each.default).strip()
    st.text_input(label, max_chars=address.LONGEST, help=help, **bind(each.name, value))
    return value


def _number(each: Any, label: str, help: str) -> Any:
    rule, name = each.metadata, each.name
    read = address.integer if isinstance(each.default, int) else address.number
    value = read(name, each.default, rule["min"], rule["max"], label.lower())
    st.number_input(
        label, rule["min"], rule["max"], step=rule["step"], help=help, **bind(name, value)
    )
    return value
