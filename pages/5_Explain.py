"""What a neuron means over its whole range, scored on unseen pictures."""

from explorer.ui import frame

frame.guard()

import streamlit as st

from explorer.records import Explanation, Status
from explorer.ui import explain, explain_parts, explain_range, neuron, pickers
from explorer.ui.places import look
from explorer.ui.session import asker, backend, section
from explorer.ui.subject import Subject
from explorer.ui.waiting import soon, waiting


def page() -> None:
    here = look()
    if isinstance(here.network, Status):
        waiting(here.network)
        return
    about = neuron.subject_of(here, here.network)
    if about is not None:
        show(about)


def show(about: Subject) -> None:
    rows = backend().table(about.ws, about.layer.name, asker())
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        neuron.heading(about, rows)
        st.space("stretch")
        neuron.steps(about, rows)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        question = explain.controls(about)
    numbers = st.container()
    halves = st.grid(3, min_column_width=290)
    main, side = halves.cell(column_span=2), halves.cell()
    found: Explanation | None = None
    with main, section():
        answer = soon(lambda: backend().explanations.explanation(question, asker()))
        if isinstance(answer, Status):
            waiting(answer)
        else:
            found = answer
    if found is not None:
        with numbers:
            explain.measures(found)
            explain.notes(found)
        with main:
            explain.terms(found)
            explain.prediction(about, found)
    with side:
        explain.own_words(about, question, found)
        if found is not None:
            explain.residuals(about, found)
    with section():
        explain_range.ranges(about, question)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader("Virtual neurons", anchor=False, width="content")
        method, params = pickers.splitting(about.layer)
    if found is not None:
        with section():
            explain_parts.virtual_neurons(about, question, about.question(method, params), found)


page()
