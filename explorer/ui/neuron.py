"""The Neuron page's upper part: address, ways to other neurons, measures, references."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from explorer.backend import SplitQuestion
from explorer.records import (
    Crops,
    ExplorerError,
    LayerTable,
    NetworkInfo,
    Neuron,
    ReferenceQuery,
    References,
    Split,
    Status,
)
from explorer.ui import address, pickers, subject
from explorer.ui.places import Look
from explorer.ui.session import asker, backend, plain, section
from explorer.ui.subject import Subject
from explorer.ui.waiting import waiting

PAGE = 16
"""Pictures on one page of the references."""


def subject_of(here: Look, network: NetworkInfo) -> Subject | None:
    """What the address asks for; None, with a panel, while the pictures are not known."""
    layer = network.layer(here.layer)
    channel = address.integer("neuron", 0, 0, layer.channels - 1, "neuron") or 0
    if isinstance(here.images, Status):
        waiting(here.images)
        return None
    neuron = Neuron(here.ws, layer.name, channel)
    return Subject(
        neuron=neuron,
        layer=layer,
        network=network,
        images=here.images,
        by=address.choice("by", "max", list(pickers.MEASURES)),
        view=address.choice("view", "crop", list(pickers.VIEWS)),
        picture=address.integer("picture", None, 0, len(here.images) - 1, "picture"),
        chosen=subject.lasso(neuron),
    )


def dead(about: Subject, rows: LayerTable | Status) -> bool:
    """Whether the neuron is known to fire on no picture, so that nothing can be split."""
    return isinstance(rows, LayerTable) and not rows.alive[about.neuron.channel]


def heading(about: Subject, rows: LayerTable | Status) -> None:
    """The neuron's name and what it seems to be."""
    channel = about.neuron.channel
    st.title(f"Neuron {channel}", anchor=False, width="content")
    st.markdown(f":gray[{plain(about.layer.name)}]", width="content")
    if isinstance(rows, LayerTable):
        if not rows.alive[channel]:
            st.badge("dead", color="gray", icon=":material/do_not_disturb_on:")
        elif rows.label[channel] >= 0:
            st.badge(
                f"{plain(about.images.label_names[rows.label[channel]])} "
                f"{rows.purity[channel]:.0%}",
                icon=":material/label:",
                color="violet",
                help="The most frequent label of its top references, and its share of them.",
            )


def steps(about: Subject, rows: LayerTable | Status) -> None:
    """Previous, a number to jump to, next, random."""
    channel, last = about.neuron.channel, about.layer.channels - 1
    forget = dict.fromkeys(address.OF_A_NEURON)

    def go(to: int) -> None:
        address.put(neuron=to, **forget)

    st.button(
        "Previous",
        icon=":material/chevron_left:",
        disabled=channel == 0,
        on_click=go,
        args=(channel - 1,),
    )
    st.number_input(
        "Neuron",
        0,
        last,
        width=110,
        label_visibility="collapsed",
        **pickers.bind("neuron", channel, address.OF_A_NEURON),
    )
    st.button(
        "Next",
        icon=":material/chevron_right:",
        icon_position="right",
        disabled=channel == last,
        on_click=go,
        args=(channel + 1,),
    )
    alive = np.flatnonzero(rows.alive) if isinstance(rows, LayerTable) else np.arange(last + 1)
    st.button(
        "Random",
        help="Any living neuron of this layer",
        icon=":material/shuffle:",
        on_click=lambda: go(int(np.random.default_rng().choice(alive))),
        disabled=not alive.size,
    )


def measures(about: Subject, rows: LayerTable | Status, split: Split | Status | None) -> None:
    """The neuron's numbers in one row."""
    grid = st.grid(6, min_column_width=110, gap="xsmall", border=True)
    if isinstance(rows, LayerTable):
        channel = about.neuron.channel
        for label, values, form, help in (
            ("Highest", rows.maximum, ".2f", "Highest activation over all pictures."),
            ("Mean", rows.mean, ".3f", "Mean over pictures of the mean over places."),
            ("Fires on", rows.density, ".1%", "Share of pictures with any activation above 0."),
        ):
            rank = float((values[rows.alive] < values[channel]).mean()) if rows.alive.any() else 0
            help = f"{help} Higher than {rank:.0%} of the layer's living neurons."
            grid.metric(label, f"{values[channel]:{form}}", help=help)
    if isinstance(split, Split):
        chosen = "Chosen automatically." if split.params.get("k") == 0 else "As asked for."
        grid.metric("Virtual neurons", str(split.k), help=chosen)
        _split_measures(grid, split)


def _split_measures(grid: Any, split: Split) -> None:
    for label, name, null, help in (
        (
            "Silhouette",
            "silhouette",
            "null_silhouette",
            (
                "How well each reference sits in its own group, -1 to 1; higher is better. "
                "The null is the same on rows with shuffled columns."
            ),
        ),
        (
            "Stability",
            "stability",
            "",
            (
                "Agreement (adjusted Rand index) of groupings of resampled references, up to 1; "
                "higher is better."
            ),
        ),
    ):
        value = split.scores.get(name, np.nan)
        against = split.scores.get(null, np.nan)
        beside = "" if np.isnan(against) else f" :small[:gray[null {against:.2f}]]"
        grid.metric(f"{label}{beside}", "—" if np.isnan(value) else f"{value:.2f}", help=help)


def references(about: Subject, split: Split | None, question: SplitQuestion) -> References | None:
    """The references with their controls; what they are, once they are known."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        span = pickers.segments("range", "Which", pickers.RANGES, "top", forget=("page",))
        pickers.segments("view", "Drawn as", pickers.VIEWS, "crop", pills=True)
        st.space("stretch")
        pickers.segments("by", "Ranked by", pickers.MEASURES, "max", forget=("page",))
    query = ReferenceQuery(by=about.by, range=span)
    answer = backend().references(about.neuron, query, asker())
    if isinstance(answer, Status):
        waiting(answer)
        return None
    crops = crops_of(about, query)
    with st.container():  # it has a line of progress or none; what follows keeps its place
        owners = _owners(split, question, query)
    positions = np.arange(len(answer.index))
    if about.chosen:
        positions = positions[np.isin(answer.index, list(about.chosen))]
    pages = -(-len(positions) // PAGE)
    page = min(address.integer("page", 1, 1, 10_000) or 1, max(pages, 1))
    shown = positions[(page - 1) * PAGE : page * PAGE]
    subject.show(about, answer, shown, crops, key="references", name="References", owners=owners)
    with st.container(horizontal=True, vertical_alignment="center"):
        pickers.page_number(pages)
        few = len(answer.index) < query.count
        why = f", not {query.count}: the neuron fires on no more photographs" if few else ""
        st.caption(f"{len(positions)} of {len(answer.index)} references{why}", width="content")
    return answer


def _owners(split: Split | None, question: SplitQuestion, query: ReferenceQuery) -> dict[int, int]:
    """The virtual neuron of each picture: of the split, or the nearest for other pictures."""
    owners = subject.owner_of(split)
    if not owners or (split is not None and query == split.references.query):
        return owners
    with section():
        answer = backend().assignment(question, query, asker())
        if not isinstance(answer, Status):
            return dict(zip(answer.index.tolist(), answer.label.tolist(), strict=True))
        waiting(answer, brief=True)
    return owners


def crops_of(about: Subject, query: ReferenceQuery) -> Crops | Status | None:
    """Where the neuron looks; a line of progress while that is found, and of the first pictures as
    soon as they are done. None if not wanted."""
    line = st.container()  # it comes and goes; what follows keeps its place
    if about.view == "whole":
        return None
    crops = backend().crops(about.neuron, query, asker())
    if isinstance(crops, Status):
        with line:
            waiting(crops, brief=True)
        return backend().begun(crops.key) or crops
    return crops


def look_ahead(about: Subject, question: SplitQuestion, rows: LayerTable | Status) -> None:
    """Of somebody who goes from neuron to neuron, ask for what the page of the next one will show,
    once this one waits for nothing."""
    way = _way(about.neuron)
    channel = about.neuron.channel + way
    following = replace(question, neuron=replace(about.neuron, channel=channel))
    if not way or st.session_state["shown"] or backend().settings.read_only:
        return
    if not isinstance(rows, LayerTable) or not 0 <= channel < len(rows.alive):
        return
    if not rows.alive[channel] or st.session_state.get("ahead") == following:
        return
    st.session_state["ahead"] = following
    asks, who = backend(), replace(asker(), ahead=True)
    with suppress(ExplorerError):  # its own page will say what is wrong
        asks.split(following, who)
        if about.view != "whole":
            asks.crops(following.neuron, following.references, who)
        asks.projection(following, who)
        asks.alignment(following, who)


def _way(neuron: Neuron) -> int:
    """1 if somebody came to a neuron from the one before it, -1 if from the one after it, else
    0."""
    here, way = st.session_state.get("came", (neuron, 0))
    if here != neuron:
        step = neuron.channel - here.channel
        near = abs(step) == 1 and here == replace(neuron, channel=here.channel)
        way = step if near else 0
    st.session_state["came"] = neuron, way
    return way
