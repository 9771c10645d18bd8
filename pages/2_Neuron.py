"""One neuron: its references, how often it fires, its virtual neurons and why they differ."""

from explorer.ui import frame

frame.guard()

from typing import Any

import streamlit as st

from explorer.records import References, Split, Status
from explorer.ui import figure, neuron, pickers, rail, virtual
from explorer.ui.gallery import mark
from explorer.ui.places import look
from explorer.ui.session import asker, backend, section
from explorer.ui.subject import SplitQuestion, Subject
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
    head = st.container(horizontal=True, vertical_alignment="center", gap="small")
    numbers = st.container()
    rows = backend().table(about.ws, about.layer.name, asker())
    halves = st.grid(3, min_column_width=290)
    main, side = halves.cell(column_span=2), halves.cell()
    with main:
        upper = st.container()
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.subheader("Virtual neurons", anchor=False, width="content")
            method, params = pickers.splitting(about.layer)
    question = about.question(method, params)
    split: Split | Status | None = None
    if not neuron.dead(about, rows):
        with main, section():
            split = soon(lambda: backend().split(question, asker()))
    known = split if isinstance(split, Split) else None
    references = None
    with upper, section():
        references = neuron.references(about, known, question)
    with head:
        neuron.heading(about, rows)
        st.space("stretch")
        neuron.steps(about, rows)
        figure.popover(question, about.view)
    with numbers:
        neuron.measures(about, rows, split)
    if isinstance(split, Status):
        with main:
            waiting(split)
    why(about, question, known, references, main, side)
    mark(about.picture)
    neuron.look_ahead(about, question, rows)


def why(
    about: Subject,
    question: SplitQuestion,
    known: Split | None,
    references: References | None,
    main: Any,
    side: Any,
) -> None:
    """The virtual neurons in the main part; how they lie and score at the side."""
    crops = None
    if known is not None:
        with main, section():
            crops = neuron.crops_of(about, known.references.query)
            virtual.virtual_neurons(about, known, crops)
            virtual.separation(about, known)
    with side:
        with section():
            rail.picked(about, crops, known)
        with section():
            rail.distribution(about, references)
        if known is not None:
            with section():
                rail.plane(about, known, question)
            with section():
                rail.agreement(known, question)


page()
