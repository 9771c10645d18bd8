"""Explanations of what a neuron is divided into, side by side: virtual neurons of a split, or
parts of a channel divided in the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from explorer.backend import SplitQuestion
from explorer.explaining import LIST, Concepts, ExplainQuestion
from explorer.operations import Operation
from explorer.records import Explanation, Neuron, Split, Status
from explorer.ui import address, explain_plots, pickers
from explorer.ui.explain import CONCEPTS, PLOT, interval
from explorer.ui.gallery import Card, gallery, sources
from explorer.ui.plots import BADGES, letter, tone
from explorer.ui.session import asker, backend, plain, section
from explorer.ui.subject import Subject
from explorer.ui.waiting import waiting

PROJECTED = "concept_vectors"
"""The method whose virtual neurons are directions, which do not add up to the neuron."""


def virtual_neurons(
    about: Subject, question: ExplainQuestion, split: SplitQuestion, whole: Explanation
) -> None:
    """The virtual neurons' explanations beside the whole neuron's; worked out when asked for."""
    if not _wanted("Explain each virtual neuron"):
        return
    answer = backend().split(split, asker())
    if isinstance(answer, Status):
        waiting(answer)
        return
    if answer.k == 1:
        st.info("The split has one virtual neuron, which is the neuron itself.")
        return
    grid = st.grid(min(answer.k + 1, 3), min_column_width=280)
    with grid.cell(), st.container(border=True):
        _part("Whole neuron", None, whole)
    parts = []
    for virtual in range(answer.k):
        with grid.cell(), st.container(border=True), section():
            asked = replace(question, split=split, virtual=virtual)
            found = backend().explanations.explanation(asked, asker())
            if isinstance(found, Status):
                waiting(found, brief=True)
                return
            _part(f"Virtual neuron {letter(virtual)}", virtual, found)
            _examples(about, answer, virtual)
            parts.append(found)
    if len(parts) == answer.k and split.method != PROJECTED:
        _together(whole, parts)


def divided(ws: str, listed: Sequence[Operation], names: Sequence[str]) -> None:
    """What the parts called ``names`` mean, of the channel that the last operation divides, beside
    the undivided channel; worked out when asked for."""
    st.subheader("What the parts mean", anchor=False)
    if not _wanted("Explain each part"):
        return
    mode = pickers.segments("concepts", "Concepts", CONCEPTS, LIST)
    neuron = Neuron.parse(ws, listed[-1].neuron)
    question = ExplainQuestion(neuron, Concepts(mode), operations=tuple(listed))
    grid = st.grid(min(len(names) + 1, 3), min_column_width=280)
    for virtual in range(-1, len(names)):
        with grid.cell(), st.container(border=True), section():
            found = backend().explanations.explanation(replace(question, virtual=virtual), asker())
            if isinstance(found, Status):
                waiting(found, brief=True)
                return
            whole = virtual < 0
            title = "Undivided" if whole else f"{letter(virtual)} · {plain(names[virtual], 40)}"
            _part(title, None if whole else virtual, found)
    st.caption(
        "Signal: what the channel and each part give, the mean over places of the positive part."
    )


def _together(whole: Explanation, parts: Sequence[Explanation]) -> None:
    """Whether the parts explain more than the whole, which their own scores do not say."""
    same = np.isin(whole.index, parts[0].index)
    actual = sum(part.actual for part in parts)
    summed = _correlation(sum(part.predicted for part in parts), actual)
    alone = _correlation(whole.predicted[same], whole.actual[same])
    count = sum(len(part.terms) for part in parts)
    st.caption(
        "A virtual neuron is 0 wherever another one owns the picture, and so easier to predict by "
        f"itself. What counts is the sum: test correlation **{summed:.3f}** with {count} terms, "
        f"against **{alone:.3f}** of the whole neuron's {len(whole.terms)} on the same "
        f"{len(parts[0].index):,} pictures."
    )


def _correlation(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Pearson's; 0 where one of them is constant."""
    varied = np.ptp(predicted) > 0 and np.ptp(actual) > 0
    return float(np.corrcoef(predicted, actual)[0, 1]) if varied else 0.0


def _wanted(label: str) -> bool:
    """Whether the parts are asked for; a button where they are not."""
    if address.choice("parts", "0", ["0", "1"]) == "1":
        return True
    st.button(label, icon=":material/call_split:", on_click=address.put, kwargs={"parts": "1"})
    return False


def _part(title: str, virtual: int | None, found: Explanation) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        colour: Any = "gray" if virtual is None else BADGES[virtual % len(BADGES)]
        st.badge(title, color=colour)
        st.markdown(f"test correlation **{found.test.value:.3f}**", help=interval(found))
    bars = explain_plots.bars(found, tone(7 if virtual is None else virtual))
    st.plotly_chart(bars, config=PLOT, key=f"part-{virtual}", alt=f"Terms of {title}")
    left = f" · {found.left_out:,} pictures left out" if found.left_out else ""
    st.caption(f"chance {found.null:.3f} ± {found.null_sd:.3f}{left}")


def _examples(about: Subject, split: Split, virtual: int) -> None:
    mine = np.flatnonzero(split.labels == virtual)[:4]
    index = split.references.index[mine]
    cards = [
        Card(int(image), source, about.images.label(int(image)) or about.images.paths[int(image)])
        for image, source in zip(index, sources(about.ws, index, size=64), strict=True)
    ]
    gallery(cards, key=f"examples-{virtual}", name=f"Pictures of {letter(virtual)}", size="small")
