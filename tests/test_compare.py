"""The Compare page without a browser: one neuron, a sample, links, and what cannot be compared."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from test_pages import (
    Serve,
    address,
    answered,
    components,
    pictures,
    serve,
    unanswered,
    visit,
    words,
)
from tiny import LAYER, LOWER

from explorer import exports
from explorer.__main__ import parser
from explorer.backend import Asker, Backend, SplitQuestion, Study
from explorer.commands.neuron import given_params
from explorer.records import Evaluation, Neuron
from explorer.ui import charts, figure, sample

__all__ = ["answered", "pictures", "serve", "unanswered"]

COMPARE = "pages/3_Compare.py"
HERE = {"ws": "tiny", "layer": LAYER, "neuron": "3"}
FEW = f"pure:lower={LOWER} concept_vectors activations random"
SAMPLE = {"ws": "tiny", "layer": LAYER, "compare": "layer", "sample": "2", "ks": "2 3"}


def table(app: AppTest, name: str) -> dict[str, Any]:
    """The data of the table of that name."""
    for each in components(app, "table"):
        data = json.loads(each.proto.json)
        if data["name"] == name:
            return data
    raise AssertionError(f"there is no table {name}")


def galleries(app: AppTest) -> list[str]:
    return [json.loads(each.proto.json)["name"] for each in components(app, "gallery")]


def press(app: AppTest, label: str) -> AppTest:
    return next(each for each in app.button if each.label == label).click().run()


def fine(app: AppTest) -> AppTest:
    assert not app.exception
    assert not app.error
    return app


def test_one_neuron_by_every_method(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = fine(visit(COMPARE, **HERE, methods=FEW, k="2", separation="1.0"))
    assert not app.warning
    said = words(app)
    for part in ("Compare", "Neuron 3", "Scores", "The same pictures, divided"):
        assert part in said
    for part in ("Agreement of methods", "Distances of pairs", "Cosines", "Null"):
        assert part in said
    rows = table(app, "Scores of every method")["rows"]
    assert len(rows) == 4
    assert all(row["cells"]["gap_null"] for row in rows if row["cells"]["k"] != "1")
    names = galleries(app)
    assert sum("virtual neuron" in name for name in names) >= 7
    assert "Pictures along concept A" in names
    assert len(app.get("plotly_chart")) == 4, "agreement, distances, tree, cosines"
    commands = "\n".join(each.value for each in app.code)
    assert "--method activations --k 2 --json" in commands
    assert "split layer4:3" in commands
    assert address(app, "methods") == FEW


def test_controls_write_the_address(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = fine(visit(COMPARE, **HERE, methods="activations random", k="2"))
    app.multiselect(key="pick-methods").set_value(["random", "activations:seed=1"]).run()
    assert address(fine(app), "methods") == "random activations:seed=1"
    app.button_group(key="pick-k").set_value("3").run()
    assert address(fine(app), "k") == "3"
    assert {row["cells"]["k"] for row in table(app, "Scores of every method")["rows"]} == {"3"}
    app.button_group(key="pick-compare").set_value("layer").run()
    assert address(fine(app), "compare") == "layer"


def test_the_slider_parts_concepts(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = fine(visit(COMPARE, **HERE, methods="concept_vectors", separation="1.0"))
    assert "of the references belong to none" in words(app)
    app.slider(key="pick-separation").set_value(0.6).run()
    assert address(fine(app), "separation") == "0.6"
    app.toggle(key="pick-centred").set_value(True).run()
    assert address(fine(app), "centred") == "True"


def test_settings_that_leave_no_concept_can_be_changed(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = fine(visit(COMPARE, **HERE, methods="concept_vectors random", separation="0.02"))
    assert "No concept of 5" in words(app)
    app.slider(key="pick-separation").set_value(1.0).run()
    assert "No concept" not in words(fine(app))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"methods": "magic random"}, "no method 'magic'"),
        ({"methods": "pure:colour=1 random"}, "no parameter 'colour'"),
        ({"methods": "random", "judge": "magic"}, "'magic' is not an embedder"),
        ({"methods": "concept_vectors", "separation": "7"}, "7"),
        ({"methods": "random", "k": "77"}, "77"),
        ({"compare": "everything"}, "everything"),
        ({**SAMPLE, "judges": "magic"}, "'magic' is not an embedder"),
        ({**SAMPLE, "ks": ""}, "k from 2 to 8"),
        ({**SAMPLE, "sample": "-4"}, "-4"),
    ],
)
def test_links_that_nobody_should_send(
    serve: Serve, answered: Backend, query: dict[str, str], said: str
) -> None:
    serve(answered)
    app = visit(COMPARE, **(HERE | {"methods": "random"} | query))
    if query.get("ks") == "":
        app.button_group(key="pick-ks").set_value([]).run()
    fine(app)
    assert said in words(app)


def test_a_method_that_cannot_work_leaves_the_others(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = fine(visit(COMPARE, **HERE, methods="concept_vectors:smallest=99 random", k="2"))
    assert "Concepts of 99 references need as many" in words(app)
    assert len(table(app, "Scores of every method")["rows"]) == 1


def test_nothing_is_computed_before_it_is_asked_for(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = fine(visit(COMPARE, **SAMPLE, methods=FEW))
    assert not app.get("plotly_chart")
    assert "2 neurons, 4 methods, 1 judge." in words(app)
    press(app, "Compare")
    fine(app)
    rows = table(app, "Methods compared")["rows"]
    assert len(rows) == 7, "three methods at two k, concept vectors at their own"
    assert table(app, "Paired differences of the gap")["rows"]
    assert len(app.get("plotly_chart")) == 3
    assert {each.label for each in app.get("download_button")} == {
        "Table (CSV)",
        "Every neuron (CSV)",
        "Everything (JSON)",
    }
    restored = fine(visit(COMPARE, **SAMPLE, methods=FEW))
    assert len(table(restored, "Methods compared")["rows"]) == 7, "the link shows it again"
    other = fine(visit(COMPARE, **SAMPLE, methods=FEW, at="3", measure="intra"))
    assert address(other, "at") == "3"
    assert address(other, "measure") == "intra"


def test_a_comparison_under_way_is_shown(serve: Serve, unanswered: Backend) -> None:
    serve(unanswered)
    app = visit(COMPARE, **SAMPLE, methods="random")
    assert not app.exception
    assert "waiting" in words(app)
    assert address(app, "compare") in ("layer", "")


def test_the_command_makes_the_same_study() -> None:
    study = Study(LAYER, ("pure:seed=1", "random"), 7, (2, 4), ("conse",), seed=3)
    words = sample.command("tiny", study).split()
    args = parser().parse_args(words[3:])
    assert (args.layer, tuple(args.methods), args.neurons) == (LAYER, study.methods, 7)
    assert (tuple(args.ks), tuple(args.judges), args.seed) == ((2, 4), ("conse",), 3)
    assert args.references == study.references.count


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("concept_vectors", {"centred": True, "separation": 0.5}),
        ("concept_vectors", {"centred": False}),
        ("embedding", {"embedder": "conse", "k": 2}),
        ("pure", {"attribution": "lrp"}),
    ],
)
def test_the_command_of_a_split_is_understood(method: str, params: dict[str, Any]) -> None:
    question = SplitQuestion(Neuron("tiny", LAYER, 3), method, params)
    args = parser().parse_args(figure.split_command(question).split()[3:])
    assert given_params(args) == params
    assert args.method == method


@pytest.fixture(scope="module")
def evaluation(answered: Backend) -> Evaluation:
    study = Study(LAYER, ("activations", "concept_vectors"), 2, (2,))
    for _ in range(10):
        found = answered.studies.evaluation("tiny", study, Asker("test", "test"))
        if isinstance(found, Evaluation):
            return found
    raise AssertionError("never answered")


def test_downloads_hold_every_number(evaluation: Evaluation) -> None:
    whole = json.loads(exports.to_json(exports.evaluation(evaluation, per_neuron=True)))
    assert len(whole["rows"]) == len(evaluation.rows)
    assert len(whole["rows"][0]["intra"]) == 2
    lines = exports.to_csv(exports.neurons(evaluation)).splitlines()
    assert lines[0] == "method,k,judge,neuron,intra,inter"
    assert len(lines) == 1 + 2 * len(evaluation.rows)
    assert exports.to_csv([]) == "\n"
    assert exports.to_csv([{"a": float("nan"), "b": 1}]) == "a,b\n,1\n"


def test_a_tree_is_drawn_from_its_linkage() -> None:
    from scipy.cluster.hierarchy import linkage

    rows = np.array([[0.0], [0.1], [5.0], [5.2], [9.0]])
    tree = linkage(rows, "ward")
    labels = np.array([0, 0, 1, 1, -1])
    drawn = charts.dendrogram(tree, 1.0, labels, 2.0)
    lines = [trace for trace in drawn.data if trace.mode == "lines"]
    assert {trace.line.color for trace in lines} == {
        charts.tone(0), charts.tone(1), charts.GREY
    }, "two concepts below the cut, the rest above"  # fmt: skip
    joins = next(trace for trace in drawn.data if trace.mode == "markers")
    assert sorted(joins.customdata) == pytest.approx(sorted(tree[:, 2] / 2))
    order = sorted(zip(charts._placed(tree, labels, 1.0)[0][:5], range(5), strict=True))
    assert {order[0][1], order[1][1]} in ({0, 1}, {2, 3}, {4, 2}, {4, 3})


def test_the_neuron_page_shows_concepts_of_other_references(
    serve: Serve, answered: Backend
) -> None:
    serve(answered)
    for more in ({"mode": "paper", "smallest": "1"}, {"start": "singular", "separation": "1.0"}):
        app = fine(visit("pages/2_Neuron.py", **HERE, method="concept_vectors", **more))
        assert "Pictures of virtual neuron A" in galleries(app)
