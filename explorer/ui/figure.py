"""The Figure popover: draw for a paper, keep the recipe, repeat it from the command line."""

from __future__ import annotations

import json
import shlex
from typing import Any

import streamlit as st

from explorer.backend import SplitQuestion
from explorer.records import Status
from explorer.ui.session import asker, backend, section
from explorer.ui.waiting import waiting

OPTIONS = {"embedder": "method-embedder"}
"""Parameters whose option has another name, because commands have one of that name already."""
FORMATS = {"pdf": "PDF", "svg": "SVG", "png": "PNG"}


def recipe_of(question: SplitQuestion, view: str) -> dict[str, Any]:
    """The recipe of the figure that shows this split's virtual neurons side by side."""
    return {
        "figure": "virtual_neurons",
        "workspace": question.neuron.workspace,
        "neuron": question.neuron.address,
        "method": question.method,
        "params": dict(question.params),
        "references": {"by": question.references.by},
        "style": view,
    }


def split_command(question: SplitQuestion) -> str:
    """The command that repeats the split."""
    words = ["python", "-m", "explorer", "split", question.neuron.address]
    words += ["--workspace", question.neuron.workspace, "--method", question.method]
    if question.references.by != "max":
        words += ["--by", question.references.by]
    for name, value in question.params.items():
        flag = OPTIONS.get(name, name.replace("_", "-"))
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return shlex.join([*words, "--json"])


def popover(question: SplitQuestion, view: str) -> None:
    """The button and what it opens."""
    with st.popover("Figure", type="primary", icon=":material/image:"):
        offered(recipe_of(question, view))
        st.markdown("**The numbers of this split**")
        st.code(split_command(question), language="shell")


def offered(recipe: dict[str, Any]) -> None:
    """The figure of a recipe in any format, the recipe, and the command that draws it."""
    text = json.dumps(recipe, indent=2)
    form = st.segmented_control(
        "Format", list(FORMATS), default="pdf", required=True, format_func=FORMATS.get
    )
    wanted = (text, form)
    if st.button("Draw the figure", type="primary", icon=":material/brush:"):
        st.session_state["figure"] = wanted
    if st.session_state.get("figure") == wanted:
        with section():
            _drawn(recipe, str(form))
    st.markdown("**The same from the command line**")
    st.code(f"python -m explorer figure recipe.json -o figure.{form}", language="shell")
    st.download_button(
        "recipe.json",
        text,
        "recipe.json",
        "application/json",
        icon=":material/download:",
        on_click="ignore",
    )
    with st.expander("Recipe"):
        st.code(text, language="json")


def _drawn(recipe: dict[str, Any], form: str) -> None:
    answer = backend().figure(recipe, form, asker())
    if isinstance(answer, Status):
        waiting(answer, brief=True)
        return
    st.download_button(
        f"Download {answer.name}",
        answer.data.tobytes(),
        answer.name,
        answer.media,
        icon=":material/download:",
        on_click="ignore",
    )
