"""The neurons of a layer: ranked, filtered, or searched by words."""

from explorer.ui import frame

frame.guard()

import streamlit as st

from explorer.records import ImageSet, NetworkInfo, Status
from explorer.ui import neurons
from explorer.ui.places import look
from explorer.ui.session import asker, backend, plain, section
from explorer.ui.waiting import waiting


def page() -> None:
    here = look()
    for answer in (here.network, here.images):
        if isinstance(answer, Status):
            waiting(answer)
            return
    assert isinstance(here.network, NetworkInfo)
    assert isinstance(here.images, ImageSet)
    layer = here.network.layer(here.layer)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Neurons", anchor=False, width="content")
        st.markdown(
            f":gray[{plain(layer.name)} · {layer.channels:,} channels · "
            f"{layer.height} × {layer.width}]",
            width="content",
        )
    words, find, show = neurons.controls()
    rows = backend().table(here.ws, layer.name, asker())
    if isinstance(rows, Status):
        waiting(rows)
        return
    found = None
    if words:
        with section():
            found = neurons.search(here.ws, layer.name, words)
    silhouettes = backend().silhouettes(here.ws, layer.name, asker())
    values = neurons.columns_of(
        rows, None if isinstance(silhouettes, Status) else silhouettes, found
    )
    default = "match" if found is not None else "max"
    order, sorted_by = neurons.ranked(rows, here.images, values, find, show, default)
    neurons.listing(here.ws, rows, here.images, values, order, sorted_by)


page()
