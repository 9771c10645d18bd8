"""Divide a channel in the weights: candidates, the division, how it does, the edited network."""

from explorer.ui import frame

frame.guard()

import streamlit as st

from explorer.records import ImageSet, NetworkInfo, Status
from explorer.ui import edited, explain_parts, incisions, surgery
from explorer.ui.places import look
from explorer.ui.session import section
from explorer.ui.waiting import waiting


def page() -> None:
    here = look()
    for answer in (here.network, here.images):
        if isinstance(answer, Status):
            waiting(answer)
            return
    assert isinstance(here.network, NetworkInfo)
    assert isinstance(here.images, ImageSet)
    head = st.container(horizontal=True, vertical_alignment="center")
    head.title("Surgery", anchor=False, width="content")
    made = surgery.maker(here)
    if made is None:
        return
    head.markdown(surgery.said(made), width="content")
    with section():
        surgery.candidates(here, made, here.images)
    st.subheader("Divide a channel", anchor=False)
    with section():
        current = surgery.form(here, made, here.images)
        listed = incisions.edits(current)
        found = incisions.judged(here, listed) if listed else None
        if found is None:
            return
        incisions.network_measures(found)
        for number, each in reversed(list(enumerate(found.incisions))):
            with st.container(border=True):
                incisions.incision(here, here.images, each, found.alignments[number], number)
        with section():
            explain_parts.divided(here.ws, listed, found.incisions[-1].edit.concepts)
        incisions.keep(current, listed)
        edited.files(here, here.network, listed)


page()
