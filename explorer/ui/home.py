"""Home: the workspace, how far its set-up is, where to start, its layers and jobs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import streamlit as st

from explorer.records import ImageSet, LayerTable, NetworkInfo, Status
from explorer.ui import waiting
from explorer.ui.gallery import strips
from explorer.ui.places import look, open_layer, open_neuron
from explorer.ui.session import asker, backend, plain, section
from explorer.ui.tables import Column, Row, table

SCANNED_UNASKED = 5000
"""Sets of at most this many pictures are scanned without being asked."""
STARTS = 6


def show() -> None:
    """The page."""
    here = look()
    st.title(plain(here.ws), anchor=False)
    if isinstance(here.network, Status) or isinstance(here.images, Status):
        _set_up(here.network, here.images)
        return
    scanned = backend().scanned(here.ws, asker())
    if isinstance(scanned, Status):
        waiting.waiting(scanned)
        return
    for text in (here.network.notice, _embedder_notice(here.ws)):
        if text:
            st.info(plain(text), icon=":material/info:")
    halves = st.grid(3, min_column_width=290)
    left, right = halves.cell(column_span=2), halves.cell()
    with left:
        with section():
            _start(here.ws, here.network, here.images, scanned)
        _layers(here.ws, here.network, scanned)
    with right:
        _facts(here.ws, here.network, here.images)
        _jobs()
        _usage()


def _set_up(network: NetworkInfo | Status, images: ImageSet | Status) -> None:
    """The first minutes: network, pictures, scan, one after the other."""
    st.markdown("Getting ready: this happens once, and what is done is kept.")
    steps = (
        ("Network", network, "its weights are read and its layers found"),
        ("Pictures", images, "they are fetched if need be, and indexed"),
        ("Scan", None, "every picture runs through the network once"),
    )
    for number, (name, answer, what) in enumerate(steps, 1):
        with st.container(border=True):
            if isinstance(answer, Status):
                st.markdown(f"**{number} · {name}**: {what}")
                waiting.waiting(answer, brief=True)
            elif answer is None:
                st.markdown(f":gray[**{number} · {name}**: {what}]")
            else:
                st.markdown(f":green[:material/check_circle:] **{number} · {name}**")


def _embedder_notice(ws: str) -> str:
    info = backend().embedder(ws, asker())
    return "" if isinstance(info, Status) else info.notice


def _start(ws: str, network: NetworkInfo, images: ImageSet, scanned: Mapping[str, float]) -> None:
    """The way in: scan if nothing is scanned yet, else the neurons that look most mixed."""
    done = [name for name, part in scanned.items() if part >= 1]
    if not done:
        _first_scan(ws, images)
        return
    layer = network.default_layer if network.default_layer in done else done[-1]
    answer = backend().table(ws, layer, asker())
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.subheader("Where to start", anchor=False, width="stretch")
            if st.button("Browse all neurons", type="primary", icon=":material/apps:"):
                open_layer(layer)
        st.caption(
            f"Neurons of {plain(layer)} that fire strongly on pictures with different labels, "
            "so that they may well be several virtual neurons in one."
        )
        if isinstance(answer, Status):
            waiting.waiting(answer, brief=True)
        else:
            _starts(ws, answer, images)


def _first_scan(ws: str, images: ImageSet) -> None:
    with st.container(border=True):
        st.subheader("One step is left", anchor=False)
        st.markdown(
            f"Every one of the {len(images):,} pictures runs through the network once, so that "
            "each neuron's references are known. It can be stopped and goes on where it was."
        )
        small = len(images) <= SCANNED_UNASKED and not backend().settings.read_only
        if small or st.session_state.get("scan_wanted") == ws:
            answer = backend().scan(ws, (), asker())
            if isinstance(answer, Status):
                waiting.waiting(answer, brief=True)
        elif st.button("Scan the pictures", type="primary", icon=":material/play_arrow:"):
            st.session_state["scan_wanted"] = ws
            st.rerun()


def _starts(ws: str, rows: LayerTable, images: ImageSet) -> None:
    strong = rows.maximum >= np.quantile(rows.maximum[rows.alive], 0.6) if rows.alive.any() else []
    order = np.argsort(np.where(rows.alive & strong, rows.purity, np.inf), kind="stable")[:STARTS]
    top = {int(channel): rows.top[channel][:8].tolist() for channel in order}
    lines = [
        Row(
            {
                "neuron": str(channel),
                "pictures": pictures,
                "max": f"{rows.maximum[channel]:.2f}",
                "density": f"{rows.density[channel]:.1%}",
            },
            id=str(channel),
            title=f"Open neuron {rows.layer}:{channel}",
        )
        for channel, pictures in strips(ws, images, top).items()
    ]
    columns = (
        Column("neuron", "Neuron"),
        Column("pictures", "Highest pictures", "pictures"),
        Column("max", "Highest", "number"),
        Column("density", "Fires on", "number"),
    )
    table(
        columns,
        lines,
        key="starts",
        name="Neurons to start with",
        size=48,
        on_open=lambda channel: open_neuron(rows.layer, int(channel)),
    )


def _layers(ws: str, network: NetworkInfo, scanned: Mapping[str, float]) -> None:
    """Every browsable layer, deepest first, with how far it is scanned."""
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.subheader("Layers", anchor=False, width="stretch")
            _scan_more(ws, network, scanned)
        columns = (
            Column("name", "Layer"),
            Column("channels", "Neurons", "number"),
            Column("size", "Map", "number"),
            Column("lower", "Split from"),
            Column("state", "Scan", "badge"),
        )
        lines = [
            Row(
                {
                    "name": each.name,
                    "channels": f"{each.channels:,}",
                    "size": f"{each.height} × {each.width}",
                    "lower": each.lower,
                    "state": _state(scanned.get(each.name, 0.0)),
                },
                id=each.name,
                title=f"Browse the neurons of {each.name}",
            )
            for each in reversed(network.layers)
        ]
        with st.container(height=380, border=False):
            table(columns, lines, key="layers", name="Layers", on_open=open_layer)


def _state(part: float) -> dict[str, str]:
    if part >= 1:
        return {"text": "scanned", "tone": "good"}
    if part > 0:
        return {"text": f"{part:.0%}", "tone": "busy"}
    return {"text": "not yet", "tone": "off"}


def _scan_more(ws: str, network: NetworkInfo, scanned: Mapping[str, float]) -> None:
    missing = [each.name for each in network.layers if scanned.get(each.name, 0.0) < 1]
    if not missing or backend().settings.read_only:
        return
    with st.popover("Scan", icon=":material/play_arrow:"):
        chosen = st.multiselect("Layers", missing, placeholder="Every layer", key="scan-layers")
        if st.button("Start the scan", type="primary"):
            st.session_state["scanning"] = (ws, tuple(chosen or missing))
    wanted = st.session_state.get("scanning")
    if wanted and wanted[0] == ws and set(wanted[1]) & set(missing):
        with section():
            answer = backend().scan(*wanted, asker())
            if isinstance(answer, Status) and answer.state in waiting.OVER:
                waiting.waiting(answer)


def _facts(ws: str, network: NetworkInfo, images: ImageSet) -> None:
    info = backend().embedder(ws, asker())
    embedder = "…" if isinstance(info, Status) else info.title
    facts = {
        "Network": network.source,
        "Weights": network.weights,
        "Parameters": f"{network.parameters / 1e6:.1f} million",
        "Input": f"{network.preprocess.crop} × {network.preprocess.crop} pixels",
        "Pictures": f"{len(images):,} of {images.name}, {len(images.label_names)} labels",
        "Embedder": embedder,
    }
    with st.container(border=True):
        st.subheader("Workspace", anchor=False)
        lines = [Row({"name": name, "value": value}) for name, value in facts.items()]
        table(
            (Column("name", ""), Column("value", "", "wide")), lines, key="facts", name="Workspace"
        )
        if images.credits:
            st.caption(plain(images.credits, 2000))


def _jobs() -> None:
    with st.container(border=True):
        st.subheader("Jobs", anchor=False)
        _jobs_now()


@st.fragment(run_every=2.0)
def _jobs_now() -> None:
    """What is waiting or running, then what ended lately."""
    for status in backend().jobs()[:8]:
        if status.state in waiting.OVER:
            icon = {"done": ":green[:material/check:]", "failed": ":red[:material/error:]"}
            mark = icon.get(status.state, ":gray[:material/block:]")
            st.markdown(f"{mark} {plain(status.title)}", help=plain(status.message) or None)
        else:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.progress(status.fraction, text=waiting.progress_text(status))
                st.button(
                    "Cancel",
                    key=f"stop-{status.key}",
                    type="tertiary",
                    on_click=backend().cancel,
                    args=(status.key, asker()),
                )
    if not backend().jobs():
        st.caption("Nothing is waiting or running.")


def _usage() -> None:
    usage = backend().usage()
    with st.container(border=True):
        st.subheader("Disk", anchor=False)
        share = usage["bytes"] / max(usage["limit"], 1)
        st.progress(
            min(share, 1.0),
            text=f"{usage['answers']:,} stored answers · {usage['bytes'] / 2**20:,.0f} MB of "
            f"{usage['limit'] / 2**30:,.0f} GB",
        )
