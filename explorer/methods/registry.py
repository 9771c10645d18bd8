"""Every method of splitting; picker, form, key, command line and About page follow from it."""

from __future__ import annotations

from explorer.methods import activations, concept_vectors, embedding, pure, random_labels
from explorer.methods.method import Method
from explorer.records import BadInput

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        pure.METHOD,
        concept_vectors.METHOD,
        activations.METHOD,
        embedding.METHOD,
        random_labels.METHOD,
    )
}


def method_named(name: str) -> Method:
    """The method of that name; BadInput, listing the others, when there is none."""
    if name not in METHODS:
        raise BadInput(f"There is no method '{name[:60]}': use one of {', '.join(METHODS)}.")
    return METHODS[name]
