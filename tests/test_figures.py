"""Figures: recipes are checked, files are what they claim, the same every time, to scale."""

from __future__ import annotations

import io
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from explorer import figures
from explorer.figures import page, virtual_neurons
from explorer.records import (
    Alignment,
    BadInput,
    FigureFile,
    ImageSet,
    NetworkInfo,
    Neuron,
    Preprocess,
    ReferenceQuery,
    References,
    Score,
    Split,
)

RECIPE = {"figure": "virtual_neurons", "workspace": "demo", "neuron": "blocks.5.3.bn2:74"}
PREPROCESS = Preprocess(256, 224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NETWORK = NetworkInfo("tiny", "random", "a" * 64, 10, (), "blocks.5.3.bn2", PREPROCESS, (), "")


def split(labels: list[int], values: list[float] | None = None) -> Split:
    """A clustering of references; -1 is an outlier."""
    count = len(labels)
    strength = np.zeros((max(labels) + 1, count), np.float32)
    for reference, label in enumerate(labels):
        if label >= 0:
            strength[label, reference] = 1.0
    neuron = Neuron("demo", "blocks.5.3.bn2", 74)
    value = np.array(values or np.linspace(9.0, 1.0, count), np.float32)
    index = np.arange(count)
    references = References(neuron, ReferenceQuery(count=count), index, value, index)
    params = {"k": len(strength), "attribution": "gradient", "seed": 3}
    scores = {"silhouette": 0.25, "null_silhouette": 0.05, "stability": 0.9}
    plane = np.zeros((count, 2), np.float32)
    return Split(neuron, "pure", 1, params, 3, references, strength, strength, "low", plane, scores)


def alignment(gap: float = 0.42) -> Alignment:
    score, gap_score = Score(1.0, 1.0, 0.1, 9), Score(gap, 0.002, 0.021, 9)
    title = "ConSE (approximate)"
    return Alignment("conse", title, "", score, score, gap_score, 1.0, Score(0.3, -0.0001, 0.03, 9))


def images(count: int) -> ImageSet:
    paths = tuple(f"{n}.png" for n in range(count))
    labels = np.full(count, -1, np.int32)
    return ImageSet("demo", "", "b" * 64, paths, labels, (), np.arange(count), "A. Painter, CC0")


def picture(number: int) -> np.ndarray:
    """A plain colour that tells which reference it is."""
    return np.full((40, 40, 3), (number, 255 - number, 7), np.uint8)


def material(recipe: dict, labels: list[int]) -> virtual_neurons.Material:
    return virtual_neurons.gather(
        recipe, split(labels), NETWORK, images(len(labels)), alignment(), picture
    )


def drawn(form: str, labels: list[int] | None = None, **keys: object) -> FigureFile:
    recipe = figures.validate({**RECIPE, **keys})
    return figures.draw(recipe, material(recipe, labels or [0, 0, 1]), form)


def test_recipe_is_completed_and_complete_recipes_stay_as_they_are() -> None:
    recipe = figures.validate({**RECIPE, "references": {"count": 50}, "params": {"k": 2}})
    assert recipe["references"] == {"by": "max", "range": "top", "count": 50, "seed": 0}
    assert recipe["params"] == {"k": 2}
    assert figures.validate(recipe) == recipe
    assert figures.parse(json.dumps(recipe)) == recipe


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"figure": "pie"}, "virtual_neurons"),
        ({"figure": ["virtual_neurons"]}, "virtual_neurons"),
        ({"colums": 3}, '"colums"'),
        ({"workspace": None}, "workspace"),
        ({"workspace": 3}, "workspace"),
        ({"neuron": "blocks.5.3.bn2"}, "LAYER:CHANNEL"),
        ({"params": [1]}, "params"),
        ({"columns": 0}, "columns"),
        ({"columns": True}, "columns"),
        ({"rows": 2.5}, "rows"),
        ({"rows": 13}, "1 to 12"),
        ({"width": "triple"}, "single, double"),
        ({"width": ["single"]}, "single, double"),
        ({"style": "blur"}, "crop"),
        ({"references": {"top": 5}}, '"top"'),
        ({"references": {"count": "5"}}, "count"),
        ({"references": {"range": "worst"}}, "worst"),
        ({"references": {"count": 0}}, "references"),
    ],
)
def test_wrong_recipe_is_refused_with_one_sentence(change: dict, told: str) -> None:
    with pytest.raises(BadInput, match=re.escape(told)) as caught:
        figures.validate({**RECIPE, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"virtual_neurons"', "[" * 100_000])
def test_text_that_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        figures.parse(text)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*virtual_neurons.DEFAULTS, "figure", "x"]),
        st.text()
        | st.integers()
        | st.none()
        | st.lists(st.integers())
        | st.dictionaries(st.text(), st.integers()),
    )
)
def test_any_recipe_is_valid_or_refused(change: dict) -> None:
    try:
        recipe = figures.validate({**RECIPE, **change})
    except BadInput:
        return
    assert figures.validate(recipe) == recipe


def test_panels_show_the_strongest_references_and_ask_for_no_more() -> None:
    asked: list[int] = []

    def ask(number: int) -> np.ndarray:
        asked.append(number)
        return picture(number)

    recipe = figures.validate({**RECIPE, "columns": 2, "rows": 1})
    found = split([0, 0, 1, 0, -1, 0], [9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
    first, second = virtual_neurons.gather(recipe, found, NETWORK, images(6), None, ask).panels
    assert asked == [0, 1, 2]
    assert (first.size, second.size) == (4, 1)
    assert (first.share, second.share) == pytest.approx((0.8, 0.2))
    assert first.activation == pytest.approx((9.0 + 8.0 + 6.0 + 4.0) / 4)
    assert second.activation == pytest.approx(7.0)


def test_provenance_and_scores_say_what_is_needed_to_make_it_again() -> None:
    text = bytes(drawn("svg", width="single").data).decode()
    for needed in (
        "blocks.5.3.bn2:74", "tiny", "random (aaaaaaaaaaaa)", "demo (bbbbbbbbbbbb, 3 pictures)",
        "pure@1: k 2, attribution gradient", "seed 3", "ConSE (approximate)", "A. Painter, CC0",
        "silhouette 0.250 (null 0.050)", "0.420 (null 0.002 ± 0.021)", "2 of 3 (67%)",
        "correlation 0.300 (null 0.000 ± 0.030)",
    ):  # fmt: skip
        assert needed in text, needed


def test_score_without_a_value_is_not_a_number_in_the_figure() -> None:
    recipe = figures.validate(RECIPE)
    one = virtual_neurons.gather(
        recipe, split([0, 0]), NETWORK, images(2), alignment(math.nan), picture
    )
    text = bytes(figures.draw(recipe, one, "svg").data).decode()
    assert "ConSE (approximate) not defined" in text
    assert not re.search(r">[^<]*\bnan\b", text)


@pytest.mark.parametrize(
    ("form", "magic"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")]
)
def test_files_are_the_same_every_time(form: str, magic: bytes) -> None:
    once, again = drawn(form), drawn(form)
    assert bytes(once.data[: len(magic)]) == magic
    assert bytes(once.data) == bytes(again.data)
    assert once.name == f"demo-blocks.5.3.bn2-74-virtual_neurons.{form}"
    assert once.media == figures.MEDIA[form]


def test_unknown_format_and_empty_split_are_refused() -> None:
    recipe = figures.validate(RECIPE)
    with pytest.raises(BadInput, match="pdf, svg, png"):
        figures.draw(recipe, material(recipe, [0]), "gif")
    nothing = virtual_neurons.Material((), 0, {}, (), "")
    with pytest.raises(BadInput, match="no virtual neuron"):
        figures.draw(recipe, nothing, "png")


@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_png_has_column_width_and_shows_the_pictures(width: str, count: int) -> None:
    file = drawn("png", [*range(count)], width=width, columns=2, rows=1)
    with Image.open(io.BytesIO(bytes(file.data))) as image:
        assert image.width == pytest.approx(page.WIDTHS[width] * figures.PNG_DPI, abs=1)
        colours = {colour for _, colour in image.convert("RGB").getcolors(maxcolors=1 << 20)}
    assert {tuple(picture(number)[0, 0]) for number in range(count)} <= colours


def test_pdf_embeds_true_type_text_and_pictures_at_their_own_size() -> None:
    data = bytes(drawn("pdf").data)
    assert b"/CIDFontType2" in data
    assert b"/Type3" not in data
    assert data.count(b"/Width 40") == 3
    assert b"CreationDate" not in data


def test_svg_keeps_text_as_text_and_names_no_date() -> None:
    text = bytes(drawn("svg").data).decode()
    assert ">Virtual neuron 1<" in text
    assert "<dc:date>" not in text


@given(st.lists(st.text(alphabet="ab .µ·", max_size=60), max_size=6), st.floats(0.5, 7.0))
@settings(max_examples=60, deadline=None)
def test_wrapped_lines_fit_and_lose_no_word(parts: list[str], width: float) -> None:
    lines = page.wrap(parts, 6.0, width)
    assert all(page.text_width(line, 6.0) <= width for line in lines)
    assert re.sub(r"[\s·]", "", "".join(lines)) == re.sub(r"[\s·]", "", "".join(parts))


def test_dollar_signs_are_text() -> None:
    recipe = figures.validate(RECIPE)
    odd = virtual_neurons.Material(material(recipe, [0]).panels, 1, {}, ("images $x_1$ & <b>",), "")
    assert "images $x_1$ &amp; &lt;b&gt;" in bytes(figures.draw(recipe, odd, "svg").data).decode()
