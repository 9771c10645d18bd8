"""What the Neuron page is about: the neuron, how it is looked at, and what is known so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from explorer.backend import SplitQuestion
from explorer.records import (
    Crops,
    ImageSet,
    Layer,
    NetworkInfo,
    Neuron,
    ReferenceQuery,
    References,
    Split,
    Status,
)
from explorer.ui import address
from explorer.ui.gallery import Card, gallery, sources
from explorer.ui.plots import letter, tone


@dataclass(frozen=True)
class Subject:
    """A neuron with its layer, network and pictures. ``by`` and ``view`` are how its pictures
    are ranked and drawn; ``chosen`` the ids of pictures picked on the map (empty: all)."""

    neuron: Neuron
    layer: Layer
    network: NetworkInfo
    images: ImageSet
    by: str
    view: str
    picture: int | None
    chosen: frozenset[int]

    @property
    def ws(self) -> str:
        return self.neuron.workspace

    @property
    def top(self) -> ReferenceQuery:
        """The references that are split."""
        return ReferenceQuery(by=self.by)

    def question(self, method: str, params: dict[str, Any]) -> SplitQuestion:
        """The split of this neuron's top references."""
        return SplitQuestion(self.neuron, method, params, self.top)


def pick(image: int) -> None:
    """Mark a picture; the same once more unmarks it. For callbacks."""
    same = address.memory().values.get("picture") == str(image)
    address.put(picture=None if same else image)


def lasso(neuron: Neuron) -> frozenset[int]:
    """The pictures picked on the map of this neuron."""
    owner, images = st.session_state.get("lasso", ("", frozenset()))
    return images if owner == neuron.address else frozenset()


def choose(neuron: Neuron, images: Sequence[int]) -> None:
    """Show only these pictures of the neuron (none: all). For callbacks."""
    st.session_state["lasso"] = (neuron.address, frozenset(map(int, images)))


def show(
    subject: Subject,
    references: References,
    positions: np.ndarray,
    crops: Crops | Status | None,
    *,
    key: str,
    name: str,
    owners: Mapping[int, int],
) -> None:
    """A gallery of the references at ``positions`` i64[n], marked by virtual neuron: ``owners``
    tells it by image id (-1: none of them)."""
    index = references.index[positions]
    usable = crops if isinstance(crops, Crops) else None
    found = set() if usable is None else set(usable.index.tolist())
    over = crops is None or (isinstance(crops, Status) and crops.state in ("failed", "cancelled"))
    pictures = sources(subject.ws, index, subject.view, usable)
    highest = float(references.value.max(initial=1e-9))
    cards = []
    for position, image, source in zip(positions, index.tolist(), pictures, strict=True):
        value = float(references.value[position])
        virtual = owners.get(image)
        label = subject.images.label(image)
        whose = "" if virtual is None else f", {belongs(virtual)}"
        cards.append(
            Card(
                id=image,
                source=source,
                title=f"{label or subject.images.paths[image]}, activation {value:.2f}{whose}",
                label=label,
                value=f"{value:.2f}",
                fill=value / highest,
                rank=str(position + 1),
                colour="" if virtual is None else tone(virtual),
                waits=not over and image not in found,
            )
        )
    gallery(cards, key=key, name=name, on_click=pick)


def belongs(virtual: int) -> str:
    """To which virtual neuron something belongs, in words."""
    return f"virtual neuron {letter(virtual)}" if virtual >= 0 else "no virtual neuron"


def owner_of(split: Split | None) -> dict[int, int]:
    """The virtual neuron of each reference image, by image id."""
    if split is None or split.k < 2:
        return {}
    return dict(zip(split.references.index.tolist(), split.labels.tolist(), strict=True))
