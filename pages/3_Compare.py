"""Methods compared: on one neuron, on a sample of a layer's neurons, on planted ones."""

from explorer.ui import frame

frame.guard()

import streamlit as st

from explorer.records import Status
from explorer.ui import compare, neuron, pickers, planted, sample
from explorer.ui.gallery import mark
from explorer.ui.places import look
from explorer.ui.waiting import waiting

SCOPES = {"neuron": "One neuron", "layer": "A sample of the layer", "planted": "Planted neurons"}


def page() -> None:
    here = look()
    if isinstance(here.network, Status):
        waiting(here.network)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.title("Compare", anchor=False, width="content")
        st.space("stretch")
        scope = pickers.segments("compare", "Compare", SCOPES, "neuron")
    if scope == "layer":
        sample.show(here.ws, here.network.layer(here.layer))
        return
    if scope == "planted":
        planted.show(here.ws, here.network.layer(here.layer))
        return
    about = neuron.subject_of(here, here.network)
    if about is not None:
        compare.show(about)
        mark(about.picture)


page()
