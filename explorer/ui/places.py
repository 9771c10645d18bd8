"""Where a person can be, what is looked at there, and ways to go elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from explorer.records import ImageSet, NetworkInfo, Status
from explorer.ui import address

NEURONS = "pages/1_Neurons.py"
NEURON = "pages/2_Neuron.py"
COMPARE = "pages/3_Compare.py"
EXPLAIN = "pages/5_Explain.py"
SURGERY = "pages/6_Surgery.py"
ABOUT = "pages/9_About.py"


@dataclass(frozen=True)
class Look:
    """What every page needs: the workspace's name, its network and pictures (or how far they
    are), and the layer ("" until the network is known)."""

    ws: str
    network: NetworkInfo | Status
    images: ImageSet | Status
    layer: str


def look() -> Look:
    """What this run looks at."""
    return st.session_state["look"]


def open_neuron(layer: str, channel: int) -> None:
    """Leave for the page of a neuron; for callbacks."""
    address.put(layer=layer, neuron=channel, **dict.fromkeys(address.OF_A_NEURON))
    here = {"ws": address.text("ws"), "layer": layer, "neuron": str(channel)}
    st.switch_page(NEURON, query_params=here)


def open_layer(layer: str) -> None:
    """Leave for the table of a layer; for callbacks."""
    forgotten = dict.fromkeys((*address.OF_A_LAYER, *address.OF_A_NEURON))
    address.put(**(forgotten | {"layer": layer}))
    st.switch_page(NEURONS, query_params={"ws": address.text("ws"), "layer": layer})
