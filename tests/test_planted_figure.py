"""The figure of methods judged on planted channels: what it says, what it refuses."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from test_figures import NETWORK, images
from tiny import JUDGE, LAYER, LOWER, command, draw_pictures, surround, write_config

from explorer import figures
from explorer.figures import planted
from explorer.records import (
    CEILING,
    CHANCE,
    CLEAN,
    BadInput,
    Chosen,
    FigureFile,
    Planted,
    PlantedRow,
    Planting,
    ReferenceQuery,
)

RECIPE = {"figure": "planted", "workspace": "tiny", "layer": LAYER}
NAN = float("nan")


def row(method: str, regime: str, ari: float, auto: float = NAN, mix: float = 1.0) -> PlantedRow:
    lower = LOWER if method == "pure" else ""
    return PlantedRow(method, lower, regime, 2, mix, ari, 0.02, 9, auto, 0.03, 9, 0.5)


def found(*rows: PlantedRow) -> Planted:
    chosen = (
        Chosen("pure", LOWER, "far", 2, 1.0, (1, 7, 1, 0)),
        Chosen("pure", LOWER, CLEAN, 1, 1.0, (6, 2, 0, 0)),
    )
    none = np.zeros((len(rows), 0), np.float32)
    query = ReferenceQuery(count=12)
    return Planted(LAYER, query, 0, "report", "after", JUDGE, rows, chosen, (), none, none, {}, {})


ROWS = (
    row(CEILING, "far", 0.8),
    row("pure", "far", 0.6, 0.5),
    row("concept_vectors", "far", NAN, 0.3),
    row(CHANCE, "far", -0.01),
)


def drawn(form: str, *rows: PlantedRow, **keys: object) -> FigureFile:
    recipe = figures.validate({**RECIPE, **keys})
    material = planted.gather(found(*(rows or ROWS)), NETWORK, images(40), ["pure@1"])
    return figures.draw(recipe, material, form)


def said(figure: FigureFile) -> str:
    """The words of an SVG, a blank between any two."""
    text = re.sub(r"<metadata>.*?</metadata>", "", figure.data.tobytes().decode(), flags=re.S)
    return " ".join(re.findall(r"<text[^>]*>([^<]+)</text>", text))


def test_a_recipe_is_a_planting_and_back() -> None:
    recipe = figures.validate({**RECIPE, "pairs": 7, "mixes": [1, 0.5], "methods": ["pure"]})
    asked = planted.planting(recipe)
    assert asked == Planting(LAYER, 7, ("pure",), mixes=(1.0, 0.5))
    again = figures.validate({"figure": "planted", "workspace": "tiny", **asdict(asked)})
    assert planted.planting(again) == asked
    assert planted.planting(figures.validate(RECIPE)) == Planting(LAYER)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layer": None}, "lacks 'layer'"),
        ({"pairs": 2.5}, "'pairs' is a whole number"),
        ({"pairs": -1}, "'pairs' is a whole number"),
        ({"methods": "pure"}, "'methods' is a list"),
        ({"methods": []}, "'methods' is a list"),
        ({"groups": [2, "3"]}, "'groups' cannot hold \"3\""),
        ({"mixes": [True]}, "'mixes' cannot hold true"),
        ({"half": 1}, "'half' is a text"),
        ({"references": {"top": 5}}, '"top"'),
        ({"width": "triple"}, "single, double"),
        ({"neuron": "a:1"}, '"neuron"'),
    ],
)
def test_a_wrong_recipe_is_refused(change: dict, told: str) -> None:
    with pytest.raises(BadInput, match=re.escape(told)):
        figures.validate({**RECIPE, **change})


def test_it_names_what_is_shown_and_how_many() -> None:
    words = said(drawn("svg"))
    for part in ("pure", LOWER, "concept_vectors", "far apart", "n = 9", "clean (8)", "far (9)"):
        assert part in words
    for part in ("Adjusted Rand index", "labels by lot", "ceiling", "report half", "seed 0"):
        assert part in words
    assert "near apart" not in words
    assert f"sources told far from near by {JUDGE}" in words
    assert " 78 " in words, "seven of nine far ones"


def test_every_level_has_its_plots_and_a_lone_channel_no_error() -> None:
    lone = replace(row("pure", "near", 0.9, mix=0.5), n=1, ari_se=NAN)
    words = said(drawn("svg", *ROWS, lone))
    assert "2 sources, mixed 1 : 0.5" in words
    assert words.count("near apart") == 2
    with pytest.raises(BadInput, match="no method to draw"):
        drawn("svg", row(CEILING, "far", 0.8))


@pytest.mark.parametrize("form", ["pdf", "svg", "png"])
@pytest.mark.parametrize("width", ["single", "double"])
def test_the_same_bytes_again(form: str, width: str) -> None:
    first, second = drawn(form, width=width), drawn(form, width=width)
    assert first.name == f"tiny-{LAYER}-planted.{form}"
    np.testing.assert_array_equal(first.data, second.data)


def test_the_command_and_the_recipe_draw_the_same_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = draw_pictures(tmp_path / "pictures", 14)
    surround(monkeypatch, write_config(tmp_path, pictures), tmp_path / "cache")
    one, two = tmp_path / "one.svg", tmp_path / "two.svg"
    argv = ["planted", LAYER, "--pairs", "1", "--references", "12", "--lower", LOWER]
    answer = command(capsys, *argv, "--methods", "pure", "--figure", str(one))
    assert answer["figure"] == str(one)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(
        f'{{"figure": "planted", "workspace": "tiny", "layer": "{LAYER}", "pairs": 1, '
        f'"methods": ["pure"], "lowers": ["{LOWER}"], "references": {{"count": 12}}}}'
    )
    command(capsys, "figure", str(recipe), "-o", str(two))
    assert one.read_bytes() == two.read_bytes()
    assert "n = 1" in one.read_text()
