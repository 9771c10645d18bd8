"""The frame around every page: navigation, workspace and layer, notes, what is running."""

from __future__ import annotations

import logging

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

from explorer.records import ExplorerError, ImageSet, NetworkInfo, Status
from explorer.settings import HOME
from explorer.ui import address, home, pickers
from explorer.ui.places import ABOUT, COMPARE, EXPLAIN, NEURON, NEURONS, SURGERY, Look
from explorer.ui.session import asker, backend, look_at, plain
from explorer.ui.waiting import OVER, progress_text

STATIC = HOME / "static"
FAULT = "This page could not be drawn, and it is a fault of ours: the log says more."


def guard() -> None:
    """The first line of each page: run it inside the frame even when a fresh ``streamlit run``
    is asked for it before it knows of navigation."""
    if PagesManager.uses_pages_directory:
        PagesManager.uses_pages_directory = False
        st.rerun()


def run() -> None:
    """Draw the frame and the page that was asked for."""
    st.set_page_config(
        page_title="Virtual Neuron Explorer",
        page_icon=str(STATIC / "favicon.png"),
        layout="wide",
        menu_items={"About": "Virtual Neuron Explorer: how neurons of a network come apart."},
    )
    st.logo(STATIC / "logo.svg", icon_image=STATIC / "mark.svg", size="large")
    page = st.navigation(
        {
            "Explore": [
                st.Page(home.show, title="Home", icon=":material/home:", default=True),
                st.Page(NEURONS, title="Neurons", icon=":material/apps:"),
                st.Page(NEURON, title="Neuron", icon=":material/hub:"),
                st.Page(COMPARE, title="Compare", icon=":material/compare:"),
                st.Page(EXPLAIN, title="Explain", icon=":material/functions:"),
                st.Page(SURGERY, title="Surgery", icon=":material/call_split:"),
            ],
            "System": [st.Page(ABOUT, title="About", icon=":material/info:")],
        }
    )
    address.load()
    st.session_state["shown"] = set()
    notes = st.container()
    try:
        st.session_state["look"] = _sidebar(page.url_path)
        page.run()
        with st.sidebar:
            _running()
    except ExplorerError as error:
        st.error(plain(error), icon=":material/error:")
    except Exception:
        logging.getLogger(__name__).exception("The page %s failed", page.title)
        st.error(FAULT, icon=":material/error:")
    for note in address.memory().notes:
        notes.warning(note, icon=":material/link_off:")
    address.publish()


def _sidebar(page: str) -> Look:
    """The pickers of workspace and layer, and the running job."""
    with st.sidebar:
        names = [workspace.name for workspace in backend().workspaces]
        ws = pickers.select(
            "ws", "Workspace", names, names[0], forget=("layer", *address.OF_A_LAYER)
        )
        values = address.memory().values
        look_at(page, ws, values.get("layer", ""), values.get("neuron", ""))
        network = backend().network(ws, asker())
        images = backend().images(ws, asker())
        layer = ""
        if isinstance(network, NetworkInfo):
            layers = [each.name for each in network.layers]
            layer = pickers.select(
                "layer", "Layer", layers, network.default_layer, forget=address.OF_A_LAYER
            )
            look_at(page, ws, layer, values.get("neuron", ""))
        if isinstance(images, ImageSet):
            st.caption(f"{plain(images.name)} · {len(images):,} pictures")
    return Look(ws, network, images, layer)


def _running() -> None:
    """Other jobs than those that the page itself waits for, while somebody waits for any."""
    if _others():
        _running_now()


def _others() -> list[Status]:
    shown = st.session_state["shown"]
    active = (status for status in backend().jobs() if status.state not in OVER)
    return [status for status in active if not status.ahead and status.key not in shown]


@st.fragment(run_every=2.0)
def _running_now() -> None:
    active = _others()
    if not active:
        return
    with st.container(border=True):
        more = f" · {len(active) - 1} more" if len(active) > 1 else ""
        st.progress(active[0].fraction, text=f"{progress_text(active[0])}{more}")
