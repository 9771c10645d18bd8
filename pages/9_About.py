"""What is computed, after whom, with which settings, under which licences."""

from explorer.ui import frame

frame.guard()

import streamlit as st

from explorer.ui import about

st.title("About", anchor=False)
st.markdown(
    "A neuron of a vision network often answers to several unrelated things. This explorer shows "
    "its reference pictures, divides them into virtual neurons, and says why they differ."
)
TABS = {
    "Methods and papers": about.methods,
    "Formulas": about.formulas,
    "Settings": about.settings,
    "Licences": about.licences,
    "Versions": about.versions,
}
for tab, draw in zip(st.tabs(list(TABS)), TABS.values(), strict=True):
    with tab:
        draw()
