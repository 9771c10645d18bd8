"""The Explain page without a browser, over a real small network and a hundred drawn pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest
from tiny import LAYER, draw_pictures, tiny_settings

from explorer.backend import Backend
from explorer.session import InlineQueue
from explorer.settings import HOME
from explorer.ui import session

HERE = {"ws": "tiny", "layer": LAYER, "neuron": "3", "concepts": "labels"}


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    """A backend that computes here and now, over enough pictures to split."""
    folder = tmp_path_factory.mktemp("explain")
    settings = tiny_settings(folder, draw_pictures(folder / "pictures", each=60))
    return Backend(settings, InlineQueue(settings))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, answered: Backend) -> Iterator[None]:
    """Let the pages ask the backend, inside the frame as the server does."""
    begin = PagesManager.__init__

    def framed(self: PagesManager, *args: Any, **kwargs: Any) -> None:
        PagesManager.uses_pages_directory = False
        begin(self, *args, **kwargs)

    monkeypatch.setattr(session, "load_settings", lambda: answered.settings)
    monkeypatch.setattr(session, "ensure_worker", lambda settings: None)
    monkeypatch.setattr(session, "Backend", lambda settings: answered)
    session.backend.clear()
    monkeypatch.setattr(PagesManager, "__init__", framed)
    yield
    session.backend.clear()


def visit(page: str = "pages/5_Explain.py", **query: str) -> AppTest:
    app = AppTest.from_file(str(HOME / "app.py"), default_timeout=120)
    app.switch_page(page)
    for name, value in query.items():
        app.query_params[name] = value
    return app.run()


def words(app: AppTest) -> str:
    kinds = (app.title, app.subheader, app.markdown, app.caption, app.error, app.warning, app.info)
    return "\n".join(str(each.value) for kind in kinds for each in kind).replace("\\", "")


def components(app: AppTest, name: str) -> list[Any]:
    return [each for each in app.get("bidi_component") if name in each.proto.component_name]


@pytest.mark.usefixtures("serve")
def test_an_explanation_with_its_scores_and_pictures() -> None:
    app = visit(**HERE)
    assert not app.exception
    assert not app.error
    metrics = {each.label for each in app.metric}
    assert {"Test correlation ↑", "Chance", "Best single"} <= metrics
    assert {"What it means", "Predicted against actual", "Predicted too high"} <= {
        each.value for each in app.subheader
    }
    assert components(app, "scatter")
    assert app.get("plotly_chart")


@pytest.mark.usefixtures("serve")
def test_ranges_and_parts_are_worked_out_when_asked_for() -> None:
    app = visit(**HERE, ranges="1", parts="1", method="activations", k="2")
    assert not app.exception
    assert not app.error
    assert "Share of the effect" in words(app)
    assert components(app, "table")
    assert "chance" in words(app)
    assert "What counts is the sum" in words(app)


@pytest.mark.usefixtures("serve")
def test_parts_of_a_divided_channel_are_one_click_away() -> None:
    here = HERE | {"layer": "layer4.0.act1", "groups": "0,2"}
    app = visit("pages/6_Surgery.py", **here)
    next(each for each in app.button if each.label == "Divide and judge").click().run()
    next(each for each in app.button if each.label == "Explain each part").click().run()
    assert not app.exception
    assert not app.error
    assert not app.warning
    said = words(app)
    assert "What the parts mean" in said
    assert said.count("test correlation") == 3, "the undivided channel and two parts"


@pytest.mark.usefixtures("serve")
def test_words_need_an_embedder_that_reads() -> None:
    app = visit(**{**HERE, "concepts": "list"})
    assert not app.exception
    assert "embeds pictures only" in words(app)
    app = visit(**HERE, typed="dog, <b>")
    assert not app.exception
    assert "markup" in words(app)


@pytest.mark.usefixtures("serve")
def test_a_wrong_link_is_corrected_with_a_note() -> None:
    app = visit(**{**HERE, "concepts": "spells", "longest": "-4"})
    assert not app.exception
    assert "cannot be used here" in words(app)
