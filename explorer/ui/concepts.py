"""Concept vectors on the Compare page: where the tree is cut, the vectors, and their pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from explorer.backend import SplitQuestion
from explorer.methods.concept_vectors import Params
from explorer.records import LayerTable, Ranking, Split, Status
from explorer.ui import address, charts, pickers, subject
from explorer.ui.gallery import Card, gallery, sources, strips
from explorer.ui.places import open_neuron
from explorer.ui.plots import BADGES, letter, tone
from explorer.ui.session import asker, backend, plain
from explorer.ui.subject import Subject
from explorer.ui.tables import Column, Row, table
from explorer.ui.waiting import waiting

DEFAULT = Params()
RANKED = 12
CHANNELS = 5
PICTURES = 4
FINEST, COARSEST = 0.02, 3.0
USUAL = 1.0
"""No tree that was seen reaches higher: beyond, the slider is only as long as it must be."""
PLOT = {"displayModeBar": False}


def from_address() -> dict[str, Any]:
    """Parameters of concept vectors that the address gives."""
    return {"separation": _separation(), "centred": _centred()}


def _separation() -> float:
    return address.number("separation", DEFAULT.separation, FINEST, COARSEST)


def _centred() -> bool:
    return address.choice("centred", str(DEFAULT.centred), ["False", "True"]) == "True"


def separation(split: Split | None) -> None:
    """The slider, and whether vectors are centred."""
    value = _separation()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.slider(
            "Separation",
            FINEST,
            max(USUAL, value),
            step=0.01,
            format="%.3f",
            help="How far apart clusters must be, in median distances of two references: smaller "
            "gives finer concepts.",
            **pickers.bind("separation", value),
        )
        st.toggle(
            "Centred",
            help="Subtract the references' mean first, which all vectors share otherwise.",
            **pickers.bind("centred", _centred()),
        )
    if split is not None:
        outliers = split.scores.get("outliers", 0.0)
        concepts = "1 concept" if split.k == 1 else f"{split.k} concepts"
        st.caption(f"{concepts}; {outliers:.0%} of the references belong to none.")


def show(about: Subject, title: str, question: SplitQuestion, split: Split) -> None:
    """The tree with its cut, cosines, and one card per vector."""
    st.subheader(plain(title), anchor=False)
    halves = st.grid(3, min_column_width=290)
    with halves.cell(column_span=2), st.container(border=True):
        _tree(split)
    with halves.cell(), st.container(border=True):
        _cosines(split)
    lower = backend().table(about.ws, split.space, asker())
    grid = st.grid(min(split.k, 3), min_column_width=300)
    for virtual in range(split.k):
        with grid.cell(), st.container(border=True):
            _vector(about, question, split, virtual, lower)


def _tree(split: Split) -> None:
    scaled = split.params.get("mode") == "scaled"
    if scaled:
        separation(split)
    tree, cut = np.array(split.provenance["tree"]), float(split.provenance["cut"])
    unit = cut / split.params["separation"] if scaled else 1.0

    def clicked() -> None:
        points = st.session_state["tree"].selection.points
        heights = [
            float(np.ravel(point["customdata"])[0]) for point in points if "customdata" in point
        ]
        if heights and scaled:
            # Just below the join, rounded down, so that its two branches come apart.
            wanted = np.floor(heights[0] * 1000 - 1e-6) / 1000
            address.put(separation=float(np.clip(wanted, FINEST, COARSEST)))

    st.plotly_chart(
        charts.dendrogram(tree, cut, split.labels, unit),
        config=PLOT,
        key="tree",
        on_select=clicked,
        selection_mode="points",
        alt="Tree of the references: lower joins are more alike; the dashed line is the cut",
    )
    st.caption(
        "References, joined by likeness (Ward). Click a join to cut just below it; k-means then "
        "refines the branches, and outliers are left out."
        if scaled
        else "References, joined by likeness (Ward), cut at the paper's height."
    )


def _cosines(split: Split) -> None:
    st.markdown("**Cosines**")
    axis = np.array(split.provenance["axis"])
    between = np.array(split.provenance["between"])
    names = charts.letters(split.k)
    start = "direction" if split.params.get("start") == "singular" else "axis"
    st.plotly_chart(
        charts.matrix(np.column_stack([between, axis]), names, [*names, start], 0, 230),
        config=PLOT,
        key="cosines",
        alt="Cosines of the concept vectors with each other and with the neuron's axis",
    )
    st.caption(
        "Of the vectors with each other and with the neuron's own axis. Uncentred vectors share "
        "the layer's mean, which makes all of them alike."
    )


def _vector(
    about: Subject,
    question: SplitQuestion,
    split: Split,
    virtual: int,
    lower: LayerTable | Status,
) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.badge(letter(virtual), color=BADGES[virtual % len(BADGES)])
        st.markdown(
            f"{split.sizes[virtual]} references · cosine with the axis "
            f"{split.provenance['axis'][virtual]:.3f}"
        )
    answer = backend().studies.ranking(question, virtual, RANKED, asker())
    if isinstance(answer, Status):
        waiting(answer, brief=True)
    else:
        _ranked(about, split, virtual, answer)
    if isinstance(lower, LayerTable):
        _channels(about, split, virtual, lower)


def _ranked(about: Subject, split: Split, virtual: int, ranking: Ranking) -> None:
    owners = dict(zip(split.references.index.tolist(), split.labels.tolist(), strict=True))
    index = ranking.index.tolist()
    low, high = ranking.mean, float(ranking.value.max(initial=ranking.mean + 1e-9))
    cards = [
        Card(
            id=image,
            source=source,
            title=f"{about.images.label(image) or about.images.paths[image]}, "
            f"projection {value:.3f}, "
            + (subject.belongs(owners[image]) if image in owners else "no reference"),
            label=about.images.label(image),
            value=f"{(value - ranking.mean) / max(ranking.sd, 1e-12):+.1f}",
            fill=(float(value) - low) / max(high - low, 1e-9),
            colour=tone(owners[image]) if image in owners else "",
        )
        for image, value, source in zip(index, ranking.value, sources(about.ws, index), strict=True)
    ]
    gallery(
        cards,
        key=f"ranked-{virtual}",
        name=f"Pictures along concept {letter(virtual)}",
        on_click=subject.pick,
    )
    st.caption(
        f"Highest of all {ranking.images:,} pictures along the vector, in standard deviations "
        "from their mean. Dots: the concept of those that are references (grey: outliers)."
    )


def _channels(about: Subject, split: Split, virtual: int, lower: LayerTable) -> None:
    """The channels that a vector is made of, by their share of its squared length."""
    shares = split.centroid[virtual] ** 2
    order = np.argsort(-shares, kind="stable")[:CHANNELS].tolist()
    pictures = strips(
        about.ws, about.images, {each: lower.top[each][:PICTURES].tolist() for each in order}
    )
    rows = [
        Row(
            {
                "channel": str(channel),
                "pictures": pictures[channel],
                "share": {
                    "fill": float(shares[channel] / max(shares.max(), 1e-12)),
                    "text": f"{shares[channel]:.1%}",
                    "colour": tone(virtual),
                },
            },
            id=str(channel),
            title=f"Open neuron {split.space}:{channel}",
        )
        for channel in order
    ]
    table(
        (
            Column("channel", "Channel"),
            Column("pictures", "Its highest pictures", "pictures"),
            Column("share", "Share", "bar", help="Of the vector's squared length"),
        ),
        rows,
        key=f"channels-{virtual}",
        name=f"Channels of concept {letter(virtual)}",
        size=32,
        on_open=lambda channel: open_neuron(split.space, int(channel)),
    )
