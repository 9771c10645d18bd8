"""One recipe, one figure file: PDF, SVG or PNG at a paper's column width, drawn by matplotlib.

A recipe is a small JSON object that names a figure type and what it shows; the same recipe over
the same material gives the same bytes. Drawing needs no network and no store: the caller hands
over the material. A further type is one file here and one entry in ``FIGURES``.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.figures import planted, virtual_neurons
from explorer.figures.recipe import quoted
from explorer.records import BadInput, FigureFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEDIA = {"pdf": "application/pdf", "svg": "image/svg+xml", "png": "image/png"}
"""Formats of a figure file and their media types."""

PNG_DPI = 300

# Type 42 keeps text in a PDF editable and accepted by publishers; "none" does so in an SVG. A
# composite of several pictures would be resampled. The salt makes the ids of an SVG repeatable.
# Unhinted text is as wide in a PNG as it was measured.
_STYLE: Any = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "virtual-neuron-explorer",
    "image.composite_image": False,
    "text.hinting": "none",
    "font.family": "DejaVu Sans",
}


@dataclass(frozen=True)
class FigureType:
    """A kind of figure. ``subject`` is the key of its recipe that says what is shown; ``defaults``
    holds every key that its recipe may have beside ``figure`` (None: must be given); ``check``
    raises BadInput for a value that cannot be drawn and returns the recipe complete; ``draw`` makes
    the figure from recipe, material and format."""

    title: str
    subject: str
    defaults: Mapping[str, Any]
    check: Callable[[dict[str, Any]], dict[str, Any]]
    draw: Callable[[Mapping[str, Any], Any, str], Figure]


FIGURES: dict[str, FigureType] = {
    "virtual_neurons": FigureType(
        title="Virtual neurons side by side",
        subject="neuron",
        defaults=virtual_neurons.DEFAULTS,
        check=virtual_neurons.check,
        draw=virtual_neurons.draw,
    ),
    "planted": FigureType(
        title="Methods judged on planted channels",
        subject="layer",
        defaults=planted.DEFAULTS,
        check=planted.check,
        draw=planted.draw,
    ),
}
"""Every figure type by the name that recipes use."""


def parse(text: str) -> dict[str, Any]:
    """A validated recipe from the text of a JSON file; BadInput when it is none."""
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"The recipe is not JSON: {error}.") from error
    return validate(recipe)


def validate(recipe: Any) -> dict[str, Any]:
    """The recipe with every default filled in, in a fixed order of keys.

    Raises BadInput that names the first key or value that is unknown, missing or out of range.
    """
    if not isinstance(recipe, Mapping):
        raise BadInput('A recipe is a JSON object such as {"figure": "virtual_neurons", ...}.')
    name = recipe.get("figure")
    if not isinstance(name, str) or name not in FIGURES:
        raise BadInput(f"A recipe's 'figure' is one of {', '.join(FIGURES)}, not {quoted(name)}.")
    known = {"figure": name, **FIGURES[name].defaults}
    for key in recipe:
        if key not in known:
            raise BadInput(f"A recipe has no key {quoted(key)}: use {', '.join(known)}.")
    filled = {key: recipe.get(key, default) for key, default in known.items()}
    for key, value in filled.items():
        if value is None:
            raise BadInput(f"The recipe lacks '{key}': add it.")
    return FIGURES[name].check(filled)


def check_format(form: str) -> None:
    """Raise BadInput unless figures can be saved in this format."""
    if form not in MEDIA:
        raise BadInput(f"A figure is saved as {', '.join(MEDIA)}, not {quoted(form)}.")


def draw(recipe: Mapping[str, Any], material: Any, form: str) -> FigureFile:
    """Draw a figure; ``form`` is a key of MEDIA and ``material`` what its type asks for.

    The file carries the recipe in its metadata and no date, so it is the same every time.
    """
    from matplotlib import rc_context

    recipe = validate(recipe)
    check_format(form)
    buffer = io.BytesIO()
    with rc_context(_STYLE):
        figure = FIGURES[recipe["figure"]].draw(recipe, material, form)
        figure.savefig(buffer, format=form, dpi=PNG_DPI, metadata=_metadata(recipe, form))
    subject = recipe[FIGURES[recipe["figure"]].subject]
    name = re.sub(r"[^\w.-]+", "-", f"{recipe['workspace']}-{subject}-{recipe['figure']}")
    return FigureFile(f"{name}.{form}", MEDIA[form], np.frombuffer(buffer.getvalue(), np.uint8))


def _metadata(recipe: Mapping[str, Any], form: str) -> dict[str, Any]:
    title, text = FIGURES[recipe["figure"]].title, json.dumps(recipe)
    if form == "pdf":
        return {"Title": title, "Subject": text, "CreationDate": None}
    if form == "svg":
        return {"Title": title, "Description": text, "Date": None}
    return {"Title": title, "Description": text}
