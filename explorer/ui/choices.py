"""Pickers of what is compared: methods with their parameters, and a judge."""

from __future__ import annotations

import streamlit as st

from explorer.methods import variants
from explorer.records import BadInput
from explorer.ui import address, pickers
from explorer.ui.session import backend, plain

OFFERED = (
    *("pure", "pure:attribution=lrp", "concept_vectors", "activations", "embedding", "random"),
)
DEFAULT = ("pure", "concept_vectors", "activations", "embedding")


def methods(ws: str, most: int) -> list[str]:
    """The picker of up to ``most`` methods; each of them usable, in one way of writing."""
    given = address.text("methods", " ".join(DEFAULT)).split()
    _, *others = backend().studies.judges(ws)
    offered = (*OFFERED, *(f"embedding:embedder={name}" for name in others))
    chosen = pickers.several(
        "methods",
        "Methods",
        offered,
        DEFAULT,
        {name: title_of(name) for name in (*offered, *given)},
        max_selections=max(most, len(given)),
        accept_new_options=True,
        placeholder="Methods, such as pure:attribution=lrp",
        help="Others can be typed: NAME:PARAMETER=VALUE, with commas between parameters.",
    )
    names = []
    if len(chosen) > most:
        address.note(f"The first {most} methods are shown: choose fewer.")
    for name in chosen[:most]:
        try:
            method, params = variants.parse(name)
            names.append(variants.text(method.name, params))
        except BadInput as error:
            address.note(plain(error))
    return list(dict.fromkeys(names))


def title_of(name: str) -> str:
    """A method's title to show, with its parameters; its text where that is none."""
    try:
        method, params = variants.parse(name)
        params = {
            param: backend().studies.title(value) if param == "embedder" else value
            for param, value in params.items()
        }
    except BadInput:
        return name
    given = [
        value if param == "embedder" else f"{param}={value}" for param, value in params.items()
    ]
    return f"{method.title} · {', '.join(given)}" if given else method.title


def judge(ws: str, about: str = "The embedder whose distances judge every method") -> str:
    """The picker of one judge; "" is the workspace's own embedder."""
    titles = backend().studies.judges(ws)
    own = next(iter(titles.values()))
    value = address.text("judge")
    options = list(dict.fromkeys([*list(titles)[1:], *([value] if value else [])]))
    st.selectbox(
        "Judge",
        ["", *options],
        format_func=lambda each: titles.get(each, each) if each else own,
        accept_new_options=True,
        help=f"{about}; any name that --embedder takes.",
        **pickers.bind("judge", value),
    )
    return value
