"""The Compare page for planted channels, without a browser."""

from __future__ import annotations

import pytest
from test_compare import COMPARE, fine, press, table
from test_pages import (
    Serve,
    address,
    answered,
    pictures,
    serve,
    unanswered,
    visit,
    words,
)
from tiny import LAYER, LOWER

from explorer.__main__ import parser
from explorer.backend import Backend
from explorer.records import Chosen, PlantedRow, Planting, ReferenceQuery
from explorer.ui import planted, planted_plots

__all__ = ["answered", "pictures", "serve", "unanswered"]

HERE = {"ws": "tiny", "layer": LAYER, "compare": "planted", "pairs": "1", "count": "8"}
METHODS = f"pure:lower={LOWER} activations concept_vectors"
HERE |= {"methods": METHODS}


def test_planted_channels_are_compared_when_asked_for(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = fine(visit(COMPARE, **HERE, mix="1 0.6"))
    assert not app.get("plotly_chart")
    assert "1 of each kind, 3 methods" in words(app)
    fine(press(app, "Plant and compare"))
    lines = table(app, "Methods on planted channels")["rows"]
    assert [row["cells"]["method"] for row in lines] == [
        "Sources themselves (ceiling)",
        "PURE (circuits)",
        "Activation k-means",
        "Concept vectors",
        "Labels by lot (null)",
    ]
    assert lines[0]["cells"]["far_auto"] == lines[3]["cells"]["far"] == "—"
    assert lines[0]["cells"]["n"] == "1 · 1"
    said = words(app)
    for part in ("Adjusted Rand index", "null", "How many parts were chosen", "possible here"):
        assert part in said
    assert len(app.get("plotly_chart")) == 3
    assert {each.label for each in app.get("download_button")} >= {
        "Table (CSV)",
        "Every channel (CSV)",
        "Everything (JSON)",
        "recipe.json",
    }
    assert "--mix 0.6 1 --join after" in "\n".join(each.value for each in app.code)
    other = fine(visit(COMPARE, **HERE, mix="1 0.6", level="1", pair="1"))
    assert address(other, "level") == "1", "the link shows it again"
    assert len(other.get("plotly_chart")) == 3


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"pairs": "0"}, "'0' cannot be used here"),
        ({"pairs": "many"}, "'many' cannot be used here"),
        ({"sources": "9"}, "Plant sums of 2 to 4 channels"),
        ({"sources": "two"}, "'two' is no number"),
        ({"mix": "1.5"}, "A mixing ratio lies above 0"),
        ({"mix": "nan"}, "A mixing ratio lies above 0"),
        ({"join": "beside"}, "'beside' cannot be used here"),
        ({"half": "left"}, "'left' cannot be used here"),
        ({"methods": "pure:k=2"}, "leave k out"),
        ({"methods": "magic random"}, "no method 'magic'"),
        ({"judge": "magic"}, "'magic' is not an embedder"),
        ({"layer": "fc"}, "choose a rectified layer"),
    ],
)
def test_what_cannot_be_planted_is_said(
    serve: Serve, answered: Backend, query: dict[str, str], said: str
) -> None:
    serve(answered)
    assert said in words(fine(visit(COMPARE, **(HERE | query))))


def test_more_than_there_are_is_refused_with_how_many(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = fine(visit(COMPARE, **(HERE | {"pairs": "900"})))
    press(app, "Plant and compare")
    assert "not 900 of each kind can be planted" in words(fine(app))


def test_planting_under_way_is_shown(serve: Serve, unanswered: Backend) -> None:
    serve(unanswered)
    app = visit(COMPARE, **HERE)
    assert not app.exception
    assert "waiting" in words(app)


def test_the_command_asks_the_same() -> None:
    asked = Planting(
        LAYER,
        7,
        ("pure:seed=1", "random"),
        groups=(2, 3),
        mixes=(0.5, 1.0),
        join="before",
        judge="conse",
        references=ReferenceQuery(count=30),
        seed=3,
        half="report",
    )
    args = parser().parse_args(planted.command("tiny", asked).split()[3:])
    assert (args.layer, args.pairs, tuple(args.methods)) == (LAYER, 7, asked.methods)
    assert (tuple(args.groups), tuple(args.mix)) == (asked.groups, asked.mixes)
    assert (args.join, args.judge, args.references) == ("before", "conse", 30)
    assert (args.seed, args.half) == (3, "report")


def test_plots_hold_what_they_are_given() -> None:
    nan = float("nan")
    rows = [
        PlantedRow("ceiling", "", "far", 2, 1.0, 0.8, 0.1, 2, nan, nan, 0, nan),
        PlantedRow("pure", "low", "far", 2, 1.0, 0.6, nan, 1, 0.5, 0.1, 2, 0.5),
    ]
    figure = planted_plots.means(rows, {("pure", "low"): "PURE · low"})
    known, auto = figure.data
    assert (list(known.x), list(auto.x)) == ([0.6], [0.5])
    assert list(known.error_x.array) == [0.0], "one channel has no error"
    assert figure.layout.shapes[0].x0 == 0.8
    counts = [
        Chosen("pure", "low", "far", 2, 1.0, (1, 3)),
        Chosen("pure", "low", "clean", 1, 1, (1, 0)),
    ]
    drawn = planted_plots.chosen(counts)
    assert drawn.data[0].z.tolist() == [[1.0, 0.0], [0.25, 0.75]]
    assert [shape.x0 for shape in drawn.layout.shapes] == [-0.48, 0.52]
