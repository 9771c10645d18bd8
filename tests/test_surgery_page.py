"""The Surgery page without a browser: candidates, a division, edits with undo, files, bad links."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from test_pages import Serve, address, components, serve, visit, words
from tiny import draw_pictures, tiny_settings

from explorer.backend import Asker, Backend
from explorer.records import EditedNetwork
from explorer.session import InlineQueue

__all__ = ["serve"]

SURGERY = "pages/6_Surgery.py"
FIRST = "layer4.0.act1"
ALIVE = "act1"
"""Its channels reach the logits of this untrained network."""
HERE = {"ws": "tiny", "layer": FIRST, "neuron": "3"}
LOOSE = {"tau": "0.001", "share": "0.3", "gamma": "1.0"}


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    folder = tmp_path_factory.mktemp("surgery-page")
    settings = tiny_settings(folder, draw_pictures(folder / "pictures", each=8))
    return Backend(settings, InlineQueue(settings))


def press(app: AppTest, label: str) -> AppTest:
    return next(each for each in app.button if each.label == label).click().run()


def fine(app: AppTest) -> AppTest:
    assert not app.exception
    assert not app.error
    return app


def test_candidates_are_looked_for_when_asked(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = fine(visit(SURGERY, ws="tiny", layer=ALIVE, **LOOSE))
    assert "conv1.6" in words(app)
    assert not components(app, "table")
    press(app, "Look for candidates")
    fine(app)
    assert components(app, "table")
    assert "channels" in words(app)
    strict = fine(visit(SURGERY, ws="tiny", layer=ALIVE, share="1.0", tau="0.9"))
    press(strict, "Look for candidates")
    assert "None of 32 channels is polysemantic" in words(strict)


def divided(serve: Serve, answered: Backend, **query: str) -> AppTest:
    serve(answered)
    app = fine(visit(SURGERY, **HERE, **query))
    if any(each.label == "Divide and judge" for each in app.button):
        press(app, "Divide and judge")
    return fine(app)


def test_a_division_is_judged(serve: Serve, answered: Backend) -> None:
    app = divided(serve, answered, groups="0,2")
    said = words(app)
    for part in (
        *("Channel 3 of layer4.0.conv1", "Ideal is 1", "Keep it", "Before and after"),
        *("Misplaced", "Are the parts' pictures more alike?"),
    ):
        assert part in said, part
    labels = {each.label: each.value for each in app.metric}
    assert labels["First class changed"] == "0 of 24"
    assert float(labels["Logits, float32"]) < 1e-5
    assert len(components(app, "gallery")) == 3, "the channel and its two parts"
    assert app.get("plotly_chart")
    shell = "\n".join(each.value for each in app.code)
    assert f"surgery {FIRST}:3 --workspace tiny --classes 'disc' 'stripes'" in shell


def test_concepts_can_be_virtual_neurons(serve: Serve, answered: Backend) -> None:
    app = divided(serve, answered, into="split", method="activations", k="2")
    assert "virtual neuron A" in words(app)
    assert "--split activations --k 2" in "\n".join(each.value for each in app.code)


def test_edits_are_kept_in_the_address_and_undone(serve: Serve, answered: Backend) -> None:
    app = divided(serve, answered, groups="0,2", rule="published")
    press(app, "Keep this edit and go on")
    fine(app)
    assert address(app, "edits") == f"{FIRST}:3~0,2~published~0"
    app = fine(
        visit(SURGERY, **(HERE | {"neuron": "5"}), groups="0,1", edits=address(app, "edits"))
    )
    press(app, "Divide and judge")
    fine(app)
    said = words(app)
    assert "Channel 3 of layer4.0.conv1" in said
    assert "Channel 5 of layer4.0.conv1" in said
    press(app, "Undo the last")
    fine(app)
    assert address(app, "edits") == ""


def test_the_files_are_offered(serve: Serve, answered: Backend) -> None:
    app = divided(serve, answered, groups="0,2")
    app.toggle(key="prepare").set_value(True).run()
    fine(app)
    assert len(app.get("download_button")) == 2
    from explorer.operations import operation, renamed

    one = [operation(f"{FIRST}:3~0,2~fitted~0")]
    found = answered.surgery.edited("tiny", one, Asker("test", "test"))
    assert isinstance(found, EditedNetwork)
    assert json.loads(renamed(found, "new.safetensors"))["file"] == "new.safetensors"


def test_a_channel_that_cannot_be_divided_leads_on(
    serve: Serve, tmp_path: Path, answered: Backend
) -> None:
    from dataclasses import replace

    workspace = replace(
        answered.settings.workspaces[0],
        name="deep",
        network="timm:test_efficientnet",
        weights="random:1",
    )
    settings = replace(answered.settings, workspaces=(workspace,), cache_dir=tmp_path)
    backend = Backend(settings, InlineQueue(settings))
    serve(backend)
    app = fine(visit(SURGERY, ws="deep", layer="blocks.3.0.bn2"))
    assert "is depthwise" in words(app)
    press(app, "Go to blocks.3.0.bn1")
    fine(app)
    assert address(app, "layer") == "blocks.3.0.bn1"
    assert "blocks.3.0.conv_pw" in words(app)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"groups": "0"}, "two concepts at least"),
        ({"groups": "x,<b>"}, "two concepts at least"),
        ({"groups": "0,999"}, "two concepts at least"),
        ({"edits": "nonsense"}, "no operation of surgery"),
        ({"edits": "layer4.0.act1:3~0,99~symmetric~0"}, "no label number 99"),
        ({"edits": "layer4.0.act1:3~0,0~symmetric~0"}, "on both sides"),
        ({"rho": "7"}, "7"),
        ({"rule": "magic"}, "magic"),
        ({"tau": "nan"}, "nan"),
        ({"neuron": "100000"}, "100000"),
    ],
)
def test_bad_links_are_said_in_a_sentence(
    serve: Serve, answered: Backend, query: dict[str, str], sentence: str
) -> None:
    serve(answered)
    app = visit(SURGERY, **(HERE | query))
    assert not app.exception
    assert sentence in words(app)


def test_an_impossible_division_is_a_sentence(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = visit(SURGERY, **HERE, edits=f"{FIRST}:3~activations-1-16~fitted~0")
    press(app, "Divide and judge")
    assert not app.exception
    assert "holds together as one" in words(app)
