"""The virtual neurons of a split: their pictures, the channels that make them, what separates
two of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import streamlit as st

from explorer.records import Crops, LayerTable, Split, Status
from explorer.ui import address, pickers, subject
from explorer.ui.gallery import strips
from explorer.ui.places import open_neuron
from explorer.ui.plots import BADGES, letter, tone
from explorer.ui.session import asker, backend, plain
from explorer.ui.subject import Subject
from explorer.ui.tables import Column, Row, table
from explorer.ui.waiting import waiting

Strips = dict[int, list[tuple[str, str]]]
"""Small pictures of channels: (source, label) each."""
FIRST = 9
"""Pictures of a virtual neuron before all are asked for."""
CHANNELS = 5
PICTURES = 4


def virtual_neurons(about: Subject, split: Split, crops: Crops | Status | None) -> None:
    """One card for each virtual neuron."""
    if split.k == 1 and split.params.get("k", 0) == 0:
        st.info(
            "The references hold together: no split of them beats chance. "
            "Choose a number of virtual neurons to divide them all the same.",
            icon=":material/adjust:",
        )
    if outliers := int((split.labels < 0).sum()):
        st.caption(
            f"{outliers} of {len(split.labels)} references belong to none of them: in "
            f"{plain(split.space)} nothing of them is left to divide."
        )
    lower = _lower(about, split)
    grid = st.grid(min(split.k, 2 if split.k in (2, 4) else 3), min_column_width=300)
    pictures: Strips = {}
    if isinstance(lower, LayerTable):
        makers = {int(each) for virtual in range(split.k) for each in _largest(split, virtual)}
        pictures = _pictures(about, lower, makers)
    everything = address.choice("all", "0", ["0", "1"]) == "1"
    for virtual in range(split.k):
        with grid.cell(), st.container(border=True):
            _card(about, split, virtual, crops, everything)
            if pictures:
                _makers(split, virtual, pictures)
    if isinstance(lower, Status):
        waiting(lower, brief=True)


def _card(
    about: Subject, split: Split, virtual: int, crops: Crops | Status | None, everything: bool
) -> None:
    mine = np.flatnonzero(split.labels == virtual)
    strength = split.references.value[mine]
    order = mine[np.argsort(-strength, kind="stable")]
    if about.chosen:
        order = order[np.isin(split.references.index[order], list(about.chosen))]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _name(virtual)
        st.markdown(
            f"{len(mine)} pictures · {len(mine) / len(split.labels):.0%} · "
            f"mean {strength.mean():.2f}"
            if mine.size
            else "no pictures",
            width="stretch",
            help="References that are its own, their share of all, and their mean activation.",
        )
    st.caption(_labels(about, split.references.index[mine]))
    subject.show(
        about,
        split.references,
        order if everything else order[:FIRST],
        crops,
        key=f"virtual-{virtual}",
        name=f"Pictures of virtual neuron {letter(virtual)}",
        owners=subject.owner_of(split),
    )
    if len(order) > FIRST:
        st.button(
            "Show fewer" if everything else f"Show all {len(order)}",
            key=f"all-{virtual}",
            type="tertiary",
            icon=":material/unfold_less:" if everything else ":material/unfold_more:",
            on_click=lambda: address.put(all=None if everything else "1"),
        )


def _name(virtual: int) -> None:
    st.badge(letter(virtual), color=BADGES[virtual % len(BADGES)])


def _labels(about: Subject, index: np.ndarray) -> str:
    """The commonest labels of some pictures, with their shares."""
    labels = about.images.labels[index]
    labels = labels[labels >= 0]
    if not labels.size:
        return "no labels"
    names, counts = np.unique(labels, return_counts=True)
    best = np.argsort(-counts, kind="stable")[:3]
    return ", ".join(
        f"{plain(about.images.label_names[names[each]])} {counts[each] / index.size:.0%}"
        for each in best
    )


def _lower(about: Subject, split: Split) -> LayerTable | Status | None:
    """The table of the layer that the centroids lie in; None where they are not its channels."""
    channels = {layer.name: layer.channels for layer in about.network.layers}
    if channels.get(split.space) != split.centroid.shape[1]:
        return None
    return backend().table(about.ws, split.space, asker())


def _pictures(
    about: Subject, lower: LayerTable, channels: Iterable[int]
) -> dict[int, list[tuple[str, str]]]:
    return strips(
        about.ws,
        about.images,
        {int(channel): lower.top[channel][:PICTURES].tolist() for channel in channels},
    )


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("-0.0%", "0.0%")


def _largest(split: Split, virtual: int) -> np.ndarray:
    """The channels with the largest shares in a virtual neuron."""
    return np.argsort(-split.centroid[virtual], kind="stable")[:CHANNELS]


def _makers(split: Split, virtual: int, pictures: Strips) -> None:
    """The lower channels that make a virtual neuron, by their share of relevance."""
    shares = split.centroid[virtual]
    most = max(float(np.abs(split.centroid).max()), 1e-9)
    rows = [
        Row(
            {
                "channel": str(channel),
                "pictures": pictures[int(channel)],
                "share": {
                    "fill": max(float(shares[channel]), 0.0) / most,
                    "text": _percent(shares[channel]),
                    "colour": tone(virtual),
                },
            },
            id=str(channel),
            title=f"Open neuron {split.space}:{channel}",
        )
        for channel in _largest(split, virtual)
    ]
    columns = (
        Column("channel", "Made by"),
        Column("pictures", f"in {split.space}", "pictures"),
        Column(
            "share",
            "Share",
            "bar",
            help="Mean signed share of what was divided: for PURE, relevance",
        ),
    )
    table(
        columns,
        rows,
        key=f"makers-{virtual}",
        name=f"Channels that make virtual neuron {letter(virtual)}",
        size=32,
        on_open=lambda channel: open_neuron(split.space, int(channel)),
    )


def separation(about: Subject, split: Split) -> None:
    """What separates two virtual neurons: the channels whose shares differ most."""
    lower = _lower(about, split)
    if split.k < 2 or lower is None:
        return
    with st.container(border=True):
        first, second = _pair(split.k)
        if isinstance(lower, Status):
            waiting(lower, brief=True)
            return
        difference = split.centroid[first] - split.centroid[second]
        order = np.argsort(-np.abs(difference), kind="stable")[: 2 * CHANNELS]
        order = order[np.argsort(-difference[order], kind="stable")]
        pictures = _pictures(about, lower, order)
        _differences(split, (first, second), difference, order, pictures)


def _pair(k: int) -> tuple[int, int]:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if k == 2:
            st.subheader("What separates A from B", anchor=False)
            return 0, 1
        st.subheader("What separates", anchor=False, width="content")
        numbers = [str(virtual) for virtual in range(k)]
        names = {number: letter(int(number)) for number in numbers}
        more = {"label_visibility": "collapsed", "width": 80}
        first = int(pickers.select("a", "First", numbers, "0", names, **more))
        st.markdown("from", width="content")
        others = [number for number in numbers if int(number) != first]
        second = int(pickers.select("b", "Second", others, others[0], names, **more))
        return first, second


def _differences(
    split: Split,
    pair: tuple[int, int],
    difference: np.ndarray,
    order: np.ndarray,
    pictures: Strips,
) -> None:
    most = max(float(np.abs(difference[order]).max()), 1e-9)
    rows = []
    for channel in order:
        more = pair[0] if difference[channel] > 0 else pair[1]
        rows.append(
            Row(
                {
                    "channel": str(channel),
                    "pictures": pictures[int(channel)],
                    "for": f"more in {letter(more)}",
                    "difference": {
                        "fill": abs(float(difference[channel])) / most,
                        "text": f"{100 * difference[channel]:+.1f} points",
                        "colour": tone(more),
                    },
                    "first": _percent(split.centroid[pair[0]][channel]),
                    "second": _percent(split.centroid[pair[1]][channel]),
                },
                id=str(channel),
                title=f"Open neuron {split.space}:{channel}",
            )
        )
    table(
        _columns(split.space, pair),
        rows,
        key="separation",
        name="Channels that separate two virtual neurons",
        size=36,
        on_open=lambda channel: open_neuron(split.space, int(channel)),
    )


def _columns(space: str, pair: tuple[int, int]) -> tuple[Column, ...]:
    return (
        Column("channel", "Channel"),
        Column("pictures", f"Highest pictures in {space}", "pictures"),
        Column("for", ""),
        Column("difference", "Difference of shares", "bar"),
        Column("first", letter(pair[0]), "number", help="Its share there"),
        Column("second", letter(pair[1]), "number", help="Its share there"),
    )
