"""An edited network as files: safetensors with the JSON of its edits."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from safetensors.torch import save

from explorer.networks import surgery
from explorer.networks.edit_list import EditList, to_json
from explorer.networks.original import Original
from explorer.networks.weights import head
from explorer.records import BadInput, Edit, EditedNetwork

LARGEST = 2_000_000_000
"""Bytes of weights that are written at most."""


def edited_network(original: Original, edits: Sequence[Edit]) -> EditedNetwork:
    """The files of a network with these edits applied after those that it carries."""
    every = (*original.edits, *edits)
    model = surgery.apply(original.model, every)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    size = sum(value.nbytes for value in state.values())
    if size > LARGEST:
        raise BadInput(
            f"The edited network takes {size / 1e9:.1f} GB, more than {LARGEST / 1e9:.0f} GB can "
            "be written: edit a smaller network."
        )
    data = save({name: value.clone() for name, value in state.items()})
    name = original.network.partition(":")[2].replace(":", "-")
    listed = EditList(
        network=original.network,
        weights=original.weights,
        base=original.base,
        outputs=head(original.model)[1],
        edits=every,
        layers=surgery.widened(model),
        file=f"{name}-edited.safetensors",
        contents=f"blake2b:{blake2b(data, digest_size=16).hexdigest()}",
    )
    return EditedNetwork(to_json(listed), np.frombuffer(data, np.uint8))
