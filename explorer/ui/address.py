"""The address: what is looked at, as text in the URL, so that every link restores the page.

The session's memory is the truth; the URL is read when a browser arrives with one, goes back or
forward, or is given another, and written after every change. Widgets are not bound to the URL
by Streamlit's own ``bind``: that drops parameters whose widget is not drawn (a layer while its
network loads), and corrects wrong ones without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlencode

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from explorer.methods.registry import METHODS
from explorer.ui.session import plain

LONGEST = 300
ALWAYS = ("ws", "layer", "neuron")
"""Names that are written even when they have their default value."""
NAMES = (
    *ALWAYS,
    *("by", "range", "view", "page", "all", "picture", "method", "a", "b"),
    *("sort", "order", "show", "find", "text"),
    *("concepts", "pool", "longest", "tolerance", "inhibitory", "typed", "ranges", "parts"),
    *("compare", "methods", "judge", "pair", "judges", "sample", "ks", "count", "draw", "at"),
    *("measure", "before", "pairs", "sources", "mix", "join", "half", "level"),
    *("edits", "into", "groups", "rule", "rho", "evidence", "tau", "share", "gamma"),
)
OF_A_NEURON = ("page", "picture", "a", "b")
"""Names that mean nothing once another neuron is looked at."""
OF_A_LAYER = ("neuron", "lower", "find", "groups", *OF_A_NEURON)
"""Names that mean nothing once another layer is looked at."""


@dataclass
class Memory:
    """``values`` as text by name; ``recent`` query strings seen or written by this session;
    ``notes`` about values that could not be used; ``written`` names that this run looked at,
    with what to write ("" for a default)."""

    values: dict[str, str] = field(default_factory=dict)
    recent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)


def memory() -> Memory:
    """The memory of this browser session."""
    if "address" not in st.session_state:
        st.session_state["address"] = Memory()
    return st.session_state["address"]


def known() -> frozenset[str]:
    """Every name that an address may hold: those above and the parameters of every method."""
    params = {each.name for method in METHODS.values() for each in fields(method.Params)}
    return frozenset(NAMES) | params


def load() -> None:
    """Take over the URL if it says something that this session did not put there."""
    now = memory()
    now.written = {}
    given = {name: st.query_params[name] for name in sorted(known() & set(st.query_params))}
    query = urlencode(given)
    context = get_script_run_ctx()
    backward = context is not None and context.is_history_navigation
    if not given or (query in now.recent and not backward):
        return
    now.notes = []
    now.values = {name: text for name, text in given.items() if _usable(name, text)}
    now.recent = [*now.recent[-50:], query]


def publish() -> None:
    """Write what this run looked at to the URL; names that wait for an answer stay as they are."""
    now = memory()
    waiting = set(st.query_params) & set(now.values) - set(now.written)
    wanted = {name: now.values[name] for name in waiting} | now.written
    wanted = {name: text for name, text in sorted(wanted.items(), key=_order) if text}
    if wanted != st.query_params.to_dict():
        now.recent = [*now.recent[-50:], urlencode(sorted(wanted.items()))]
        st.query_params.from_dict(wanted)


def put(**values: object) -> None:
    """Look at something else; None forgets a value. For callbacks, and before switching pages."""
    now = memory()
    now.notes = []
    for name, value in values.items():
        if value is None:
            now.values.pop(name, None)
        else:
            now.values[name] = str(value)


def put_widget(name: str, key: str, forget: Sequence[str] = ()) -> None:
    """The callback of a picker: take its value over, and forget what that makes meaningless."""
    put(**dict.fromkeys(forget), **{name: st.session_state[key]})


def note(text: str) -> None:
    """Tell the person, above the page, that something in the link could not be used."""
    if text not in memory().notes:
        memory().notes.append(text)


def text(name: str, default: str = "") -> str:
    """The text of that name, as it is."""
    return _read(name, default, str, lambda value: True, "")


def integer(name: str, default: int | None, low: int, high: int, what: str = "") -> int | None:
    """A whole number between ``low`` and ``high``; anything else becomes ``default``."""
    allowed = f"use a whole number from {low} to {high}"
    return _read(name, default, int, lambda value: low <= value <= high, allowed, what)


def number(name: str, default: float, low: float, high: float, what: str = "") -> float:
    """A number between ``low`` and ``high``; anything else becomes ``default``."""
    allowed = f"use a number from {low} to {high}"
    return _read(name, default, float, lambda value: low <= value <= high, allowed, what)


def choice(name: str, default: str, options: Sequence[str], what: str = "") -> str:
    """One of ``options``; anything else becomes ``default``."""
    few = [str(option) for option in options[:10] if option != ""]
    allowed = f"use {', '.join(few)}" + (" or another in the list" if len(options) > 10 else "")
    return _read(name, default, str, lambda value: value in options, allowed, what)


def _read(
    name: str,
    default: Any,
    kind: Callable[[str], Any],
    fits: Callable[[Any], bool],
    allowed: str,
    what: str = "",
) -> Any:
    now = memory()
    value = default
    if name in now.values:
        try:
            value = kind(now.values[name])
            usable = fits(value)
        except ValueError:
            usable = False
        if not usable:
            wrong = plain(now.values.pop(name), 60)
            note(
                f"The link's {plain(what or name)} '{wrong}' cannot be used here: {plain(allowed)}."
            )
            value = default
    omitted = value is None or (value == default and name not in ALWAYS)
    now.written[name] = "" if omitted else str(value)
    return value


def _usable(name: str, value: str) -> bool:
    if len(value) <= LONGEST and value.isprintable():
        return True
    note(f"The link's {plain(name)} cannot be read and was left out.")
    return False


def _order(item: tuple[str, str]) -> tuple[int, str]:
    return (ALWAYS.index(item[0]) if item[0] in ALWAYS else len(ALWAYS), item[0])
