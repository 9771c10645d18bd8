"""The Neuron page's right side: distribution, the picked picture, the map, agreement."""

from __future__ import annotations

import numpy as np
import streamlit as st

from explorer.backend import SplitQuestion
from explorer.records import (
    Alignment,
    Crops,
    ExplorerError,
    Projection,
    References,
    Score,
    Split,
    Status,
)
from explorer.ui import plots, subject
from explorer.ui.gallery import Card, gallery, sources
from explorer.ui.session import asker, backend, plain
from explorer.ui.subject import Subject
from explorer.ui.waiting import waiting

BINS = 40


def distribution(about: Subject, references: References | None) -> None:
    """How often the neuron fires how strongly."""
    answer = backend().histogram(about.neuron, BINS, asker())
    if isinstance(answer, Status):
        waiting(answer, brief=True)
        return
    with st.container(border=True):
        st.subheader("Activation over the pictures", anchor=False)
        low = float("inf")
        if references is not None and references.query.range == "top":
            low = float(references.value.min(initial=np.inf))
        plots.histogram(
            answer,
            low,
            key="histogram",
            name="Histogram of the neuron's highest activation per picture, logarithmic counts",
        )
        coloured = "; coloured: the references" if np.isfinite(low) else ""
        left_out = f" {answer.zero:,} pictures at zero are left out." if answer.zero else ""
        st.caption(f"Logarithmic counts{coloured}.{left_out}")


def picked(about: Subject, crops: Crops | Status | None, split: Split | None) -> None:
    """The picture that was clicked, whole and with what matters in it."""
    image = about.picture
    if image is None:
        return
    with st.container(border=True):
        label = about.images.label(image) or "no label"
        with st.container(horizontal=True, vertical_alignment="center"):
            st.subheader(plain(label), anchor=False, width="stretch")
            st.button(
                "Close",
                type="tertiary",
                icon=":material/close:",
                on_click=subject.pick,
                args=(image,),
            )
        cards = [Card(0, sources(about.ws, [image], size=256)[0], "The whole picture")]
        if isinstance(crops, Crops) and image in crops.index:
            heat = sources(about.ws, [image], "heat", crops, 256)[0]
            cards.append(Card(1, heat, "Relevance for the neuron"))
        gallery(cards, key="picked", name="The picked picture", size="large")
        virtual = subject.owner_of(split).get(image)
        whose = "" if virtual is None else f" · {subject.belongs(virtual)}"
        st.caption(f"{plain(about.images.paths[image])}{whose}")


def plane(about: Subject, split: Split, question: SplitQuestion) -> None:
    """The references on a plane; a lasso chooses which are shown in the galleries."""
    with st.container(border=True):
        st.subheader("Map of the references", anchor=False)
        points, title = split.map, "First two principal components"
        answer = _projection(question)
        if isinstance(answer, Projection):
            points, title = answer.map, answer.algorithm.upper()
        index = split.references.index
        names = [
            f"{about.images.label(int(image))} {value:.2f}"
            for image, value in zip(index, split.references.value, strict=True)
        ]
        chosen = {at for at, image in enumerate(index.tolist()) if image in about.chosen}
        marked = {int(image): at for at, image in enumerate(index)}.get(about.picture or -1)

        plots.plane(
            points,
            split.labels,
            names,
            chosen,
            marked,
            key="map",
            name="References on a plane, coloured by virtual neuron",
            on_choose=lambda found: subject.choose(about.neuron, index[found].tolist()),
        )
        st.caption(f"{title} of the rows that were divided. Draw around points to see only them.")
        if isinstance(answer, Status):
            waiting(answer, brief=True)
        elif isinstance(answer, str):
            st.caption(plain(answer))
        if about.chosen:
            st.button(
                f"Show all again ({len(about.chosen)} chosen)",
                icon=":material/filter_alt_off:",
                on_click=subject.choose,
                args=(about.neuron, ()),
            )


def _projection(question: SplitQuestion) -> Projection | Status | str:
    """UMAP, how far it is, or why it cannot be had: the principal components do without it."""
    try:
        answer = backend().projection(question, asker())
    except ExplorerError as error:
        return str(error)
    failed = isinstance(answer, Status) and answer.state == "failed" and not answer.fault
    return answer.message if failed else answer


def agreement(split: Split, question: SplitQuestion) -> None:
    """How well the split agrees with an embedder that has never seen the network."""
    with st.container(border=True):
        st.subheader("Agreement with an embedder", anchor=False)
        answer = backend().alignment(question, asker())
        if isinstance(answer, Status):
            waiting(answer, brief=True)
            return
        st.caption(plain(answer.title), help=plain(answer.notice) or None)
        if answer.notice:
            st.caption(f":material/info: {plain(answer.notice)}")
        _scores(answer)


def _scores(answer: Alignment) -> None:
    grid = st.grid(2, min_column_width=120, gap="xsmall")
    for label, score, better, what in (
        ("Within", answer.intra, -1, "Mean distance of two references of one virtual neuron."),
        ("Between", answer.inter, 1, "Mean distance of two references of different ones."),
        ("Gap", answer.gap, 1, "Between minus within."),
        (
            "Correlation",
            answer.correlation,
            1,
            (
                "Pearson correlation of the pairwise distances of the method's rows with the "
                "embedder's. The null shuffles the references."
            ),
        ),
    ):
        _score(grid, label, score, better, what)
    st.caption(f"n = {answer.gap.n} references. Mean distance of any two: {answer.overall:.3f}")


def _score(
    grid: st.delta_generator.DeltaGenerator, label: str, score: Score, better: int, what: str
) -> None:
    direction = "higher is better" if better > 0 else "lower is better"
    defined = np.isfinite(score.value)
    clear = defined and better * (score.value - score.null) > 2 * score.null_sd
    grid.metric(
        f"{label} {'↑' if better > 0 else '↓'}",
        f"{score.value:.3f}" if defined else "—",
        delta=f"null {score.null:.3f} ± {score.null_sd:.3f}" if defined else "not defined",
        delta_color="green" if clear else "off",
        delta_arrow="off",
        help=f"{what} {direction.capitalize()}. Over n = {score.n:,} pairs. The null is the mean "
        "and spread under random labels of the same sizes; green is beyond two of its standard "
        "deviations on the better side.",
    )
