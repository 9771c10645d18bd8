"""Every page without a browser, over a real small network: empty, waiting, failed, done, and
links that nobody should send."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest
from tiny import LAYER, LOWER, draw_pictures, tiny_settings, wait

from explorer.backend import Asker, Backend
from explorer.jobs import Jobs
from explorer.methods.registry import METHODS
from explorer.records import (
    DeadNeuron,
    LayerTable,
    NetworkInfo,
    Neuron,
    ReferenceQuery,
    Status,
)
from explorer.session import InlineQueue
from explorer.settings import HOME
from explorer.ui import ahead, session
from explorer.ui.address import NAMES

NEURONS, NEURON, ABOUT = "pages/1_Neurons.py", "pages/2_Neuron.py", "pages/9_About.py"
HERE = {"ws": "tiny", "layer": LAYER, "neuron": "3", "lower": LOWER}
Serve = Callable[[Backend], None]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pages") / "pictures")


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Backend:
    """A backend that computes here and now, and keeps its answers for the whole module."""
    settings = tiny_settings(tmp_path_factory.mktemp("answered"), pictures)
    return Backend(settings, InlineQueue(settings))


@pytest.fixture
def unanswered(tmp_path: Path, pictures: Path) -> Backend:
    """A backend whose worker never comes."""
    return Backend(tiny_settings(tmp_path, pictures))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the pages ask this backend, and run them inside the frame as the server does."""
    begin = PagesManager.__init__

    def framed(self: PagesManager, *args: Any, **kwargs: Any) -> None:
        PagesManager.uses_pages_directory = False
        begin(self, *args, **kwargs)

    def use(backend: Backend) -> None:
        monkeypatch.setattr(session, "load_settings", lambda: backend.settings)
        monkeypatch.setattr(session, "ensure_worker", lambda settings: None)
        monkeypatch.setattr(session, "Backend", lambda settings: backend)
        session.backend.clear()

    monkeypatch.setattr(PagesManager, "__init__", framed)
    yield use
    session.backend.clear()


def visit(page: str = "", **query: str) -> AppTest:
    app = AppTest.from_file(str(HOME / "app.py"), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    if page:
        app.switch_page(page)
        for name, value in query.items():
            app.query_params[name] = value
    return app.run()


def words(app: AppTest) -> str:
    """Everything that is written on the page."""
    kinds = (app.title, app.subheader, app.markdown, app.caption, app.error, app.warning, app.info)
    progress = [each.proto.text for each in app.get("progress")]
    said = [str(each.value) for kind in kinds for each in kind] + progress
    return "\n".join(said).replace("\\", "")


def address(app: AppTest, name: str) -> str:
    """What the URL says of a name, "" if nothing."""
    value = app.query_params.get(name, "")
    return value if isinstance(value, str) else value[-1]


def components(app: AppTest, name: str) -> list[Any]:
    return [each for each in app.get("bidi_component") if name in each.proto.component_name]


def cards(app: AppTest) -> list[dict[str, Any]]:
    """The references as they are drawn."""
    return json.loads(components(app, "gallery")[0].proto.json)["items"]


@pytest.mark.parametrize("page", ["", NEURONS, NEURON])
def test_first_visit_waits_for_network_and_pictures(
    serve: Serve, unanswered: Backend, page: str
) -> None:
    serve(unanswered)
    app = visit(page, ws="tiny", layer=LAYER, neuron="7")
    assert not app.exception
    assert not app.error
    assert "Loading" in words(app)
    assert "waiting" in words(app)
    assert [button.label for button in app.button].count("Cancel") >= 1
    assert address(app, "layer") == LAYER, "what waits is not forgotten"


def test_home_leads_from_the_first_visit_to_a_neuron(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = visit()
    assert not app.exception
    assert not app.error
    assert {"Where to start", "Layers", "Workspace", "Jobs", "Disk"} <= {
        each.value for each in app.subheader
    }
    assert components(app, "table")
    next(each for each in app.button if each.label == "Browse all neurons").click().run()
    assert [each.value for each in app.title] == ["Neurons"]


def test_neurons_are_listed_sorted_and_filtered(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = visit(NEURONS, ws="tiny", layer=LAYER)
    assert not app.exception
    assert not app.error
    assert not app.warning
    assert f"of {_channels(answered):,} neurons" in words(app)
    app = visit(NEURONS, ws="tiny", layer=LAYER, find="no such label")
    assert "loosen the filters" in words(app)
    app = visit(NEURONS, ws="tiny", layer=LAYER, text="stripes")
    assert "embeds pictures only" in words(app), "the table stays, with a sentence"
    assert components(app, "table")


def _channels(backend: Backend) -> int:
    network = backend.network("tiny", Asker("test", "test"))
    assert isinstance(network, NetworkInfo)
    return network.layer(LAYER).channels


def test_a_neuron_is_complete(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = visit(NEURON, **HERE, k="2")
    assert not app.exception
    assert not app.error
    assert not app.warning
    said = words(app)
    for part in (
        "Neuron 3",
        "Virtual neurons",
        "What separates A from B",
        "Map of the references",
        "Agreement with an embedder",
        "Activation over the pictures",
    ):
        assert part in said
    assert len(components(app, "gallery")) == 3, "references and two virtual neurons"
    assert len(components(app, "table")) == 3, "two circuits and their difference"
    labels = [each.label for each in app.metric]
    assert {"Gap ↑", "Within ↓", "Between ↑", "Correlation ↑"} <= set(labels)
    assert "UMAP" in said
    assert "python -m explorer split layer4:3" in "\n".join(each.value for each in app.code)


def test_pictures_whose_crops_are_not_there_yet_are_marked(
    serve: Serve, answered: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(answered)
    asker = Asker("tester", "page")
    crops = wait(lambda: answered.crops(Neuron("tiny", LAYER, 3), ReferenceQuery(), asker))
    some = replace(crops, index=crops.index[:5])
    begun = Status("crops:begun", "running", "Finding where it looks", 0.2)
    monkeypatch.setattr(answered, "crops", lambda *about: begun)
    monkeypatch.setattr(answered, "status", lambda *about: begun)
    monkeypatch.setattr(answered, "begun", lambda name: some)
    references = cards(visit(NEURON, **HERE))
    assert [each.get("waits", False) for each in references] == [False] * 5 + [True] * 11
    monkeypatch.setattr(answered, "begun", lambda name: None)
    references = cards(visit(NEURON, **HERE))
    assert all(each["waits"] for each in references)
    whole = cards(visit(NEURON, view="whole", **HERE))
    assert not any("waits" in each for each in whole)


@pytest.mark.parametrize("comes", [True, False])
def test_a_split_that_comes_within_a_moment_is_not_announced(
    serve: Serve, answered: Backend, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    serve(answered)
    visit(NEURON, **HERE, k="2", view="whole")  # all else is answered
    under_way = Status("split:soon", "running", "Splitting neuron 3", 0.2)
    real, asked, looks = answered.split, [], []

    def split(*about: Any) -> Any:
        asked.append(about)
        return under_way if len(looks) < 3 or not comes else real(*about)

    def status(key: str, asker: Asker) -> Status:
        looks.append(key)
        return replace(under_way, state="done") if len(looks) >= 3 and comes else under_way

    monkeypatch.setattr(answered, "split", split)
    monkeypatch.setattr(answered, "status", status)
    said = words(visit(NEURON, **HERE, k="2", view="whole"))
    assert ("What separates A from B" in said) == comes
    assert ("Splitting neuron 3" in said) != comes
    assert len(asked) == (2 if comes else 1)


@pytest.mark.parametrize(
    ("neuron", "more", "kinds"),
    [
        (11, "", ["split", "crops"]),
        (12, "&view=whole", ["split"]),
        (15, "&by=mean&page=2", ["split", "crops"]),
        (13, "", []),  # fires on no picture
        (14, "&method=random", []),
        (10, "&by=nothing", []),
        (100_000, "", []),
    ],
)
def test_an_address_is_asked_ahead(
    serve: Serve, answered: Backend, tmp_path: Path, neuron: int, more: str, kinds: list[str]
) -> None:
    wait(lambda: answered.scan("tiny", [LAYER], Asker("tester", "page")))
    copy = shutil.copytree(answered.settings.cache_dir, tmp_path / "copy")
    queued = Backend(replace(answered.settings, cache_dir=copy))
    serve(queued)
    ahead.ask(f"ws=tiny&layer={LAYER}&neuron={neuron}{more}")
    about = f"{LAYER}:{neuron}:"
    assert [job.key.split(":")[0] for job in queued.jobs() if about in job.key] == kinds


@pytest.fixture
def asked_ahead(answered: Backend, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of what pages ask ahead and is not known."""
    asked: list[str] = []
    queue = answered._desk.queue
    submit = queue.submit

    def noted(key: str, *about: Any, ahead: bool, **more: Any) -> Status:
        asked.extend([key] * ahead)
        return submit(key, *about, ahead=ahead, **more)

    monkeypatch.setattr(queue, "submit", noted)
    return asked


def press(app: AppTest, way: str) -> None:
    """Go to another neuron by a button."""
    next(each for each in app.button if each.label == way).click().run()
    assert not app.exception
    assert not app.error


def test_who_goes_from_neuron_to_neuron_finds_the_next_one_ready(
    serve: Serve, answered: Backend, asked_ahead: list[str]
) -> None:
    serve(answered)

    def turned(app: AppTest, way: str) -> set[tuple[str, int]]:
        """What was asked ahead after a button was pressed: kinds and channels."""
        asked_ahead.clear()
        press(app, way)
        about = (key.split(":") for key in asked_ahead)
        return {(kind, int(channel)) for kind, _, _, channel, _ in about}

    app = visit(NEURON, **HERE, k="2")
    assert not asked_ahead, "one neuron is no way"
    kinds = ("split", "crops", "projection", "alignment")
    assert turned(app, "Next") == {(kind, 5) for kind in kinds}
    assert turned(app, "Next") == {(kind, 6) for kind in kinds}
    assert not turned(app, "Previous"), "3 was looked at before"
    app.number_input(key="pick-neuron").set_value(15).run()
    assert not asked_ahead


@pytest.mark.parametrize(
    ("start", "view", "why", "kinds"),
    [
        (20, "crop", "", {"split", "crops", "projection", "alignment"}),
        (23, "whole", "", {"split", "projection", "alignment"}),
        (26, "crop", "the next neuron is dead", set()),
        (-2, "crop", "there is no next neuron", set()),
    ],
)
def test_nothing_is_asked_ahead_that_no_page_would_show(
    serve: Serve,
    answered: Backend,
    asked_ahead: list[str],
    monkeypatch: pytest.MonkeyPatch,
    start: int,
    view: str,
    why: str,
    kinds: set[str],
) -> None:
    serve(answered)
    rows = answered.table("tiny", LAYER, Asker("test", "test"))
    assert isinstance(rows, LayerTable)
    first = start % len(rows.alive)
    alive = np.ones_like(rows.alive)
    alive[first + 2 :] = "dead" not in why
    table = answered.table

    def changed(ws: str, layer: str, asker: Asker) -> LayerTable | Status:
        return replace(rows, alive=alive) if layer == LAYER else table(ws, layer, asker)

    monkeypatch.setattr(answered, "table", changed)
    app = visit(NEURON, **(HERE | {"neuron": str(first)}), k="3", view=view)
    press(app, "Next")
    assert address(app, "neuron") == str(first + 1)
    assert {key.split(":")[0] for key in asked_ahead} == kinds, why


def test_nothing_is_scanned_for_an_address_alone(serve: Serve, unanswered: Backend) -> None:
    serve(unanswered)
    for query in (f"ws=tiny&layer={LAYER}&neuron=3", "ws=other&layer=a&neuron=0", "neuron=x", ""):
        ahead.ask(query)
    assert [job.key.split(":")[0] for job in unanswered.jobs()] == ["network"]


def test_controls_write_the_address(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = visit(NEURON, **HERE, k="2")
    assert address(app, "neuron") == "3"
    assert address(app, "k") == "2"
    app.button_group(key="pick-range").set_value("quantiles").run()
    app.button_group(key="pick-view").set_value("whole").run()
    assert address(app, "range") == "quantiles"
    assert address(app, "view") == "whole"
    next(each for each in app.button if each.label == "Next").click().run()
    assert address(app, "neuron") == "4"
    assert address(app, "k") == "2", "how to split stays, for comparison"
    app.selectbox(key="pick-layer").set_value(LOWER).run()
    assert address(app, "layer") == LOWER
    assert address(app, "neuron") == "0"
    assert not app.exception
    assert not app.error


@pytest.mark.parametrize("method", [name for name in METHODS if name != "pure"])
def test_every_method_can_be_chosen(serve: Serve, answered: Backend, method: str) -> None:
    serve(answered)
    app = visit(NEURON, **HERE, method=method)
    assert not app.exception
    assert not app.error
    assert address(app, "method") == method
    assert f"--method {method}" in "\n".join(each.value for each in app.code)


def test_a_dead_neuron_is_said_to_be_dead_once(
    serve: Serve, answered: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(answered)
    rows = answered.table("tiny", LAYER, Asker("test", "test"))
    assert isinstance(rows, LayerTable)
    alive = rows.alive.copy()
    alive[3] = False
    monkeypatch.setattr(answered, "table", lambda *_: replace(rows, alive=alive))

    def none(*_: object) -> None:
        raise DeadNeuron("Neuron layer4:3 fires on none of the pictures: choose another.")

    monkeypatch.setattr(answered, "references", none)
    app = visit(NEURON, **HERE)
    assert not app.exception
    assert not app.error
    assert [each.value.replace("\\", "") for each in app.warning] == [
        "Neuron layer4:3 fires on none of the pictures: choose another."
    ]
    assert "dead" in words(app)
    assert not next(each for each in app.button if each.label == "Next").disabled


def test_one_virtual_neuron_has_no_gap(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = visit(NEURON, **HERE, k="1")
    assert not app.exception
    assert not app.error
    assert "hold together" not in words(app), "it was asked for, not found"
    assert "not defined" in [each.delta for each in app.metric]


BAD = [
    ({"ws": "nowhere"}, "nowhere"),
    ({"ws": "tiny", "layer": "layer99"}, "layer99"),
    ({"ws": "tiny", "layer": LAYER, "neuron": "99999"}, "99999"),
    ({"ws": "tiny", "layer": LAYER, "neuron": "-1"}, "1"),
    ({"ws": "tiny", "layer": LAYER, "neuron": "3e0"}, "3e0"),
    ({"ws": "tiny", "layer": LAYER, "k": "9"}, "9"),
    ({"ws": "tiny", "layer": LAYER, "method": "__import__('os')"}, "import"),
    ({"ws": "tiny", "layer": LAYER, "view": "<img src=x onerror=alert(1)>"}, "onerror"),
    ({"ws": "tiny", "layer": LAYER, "range": "![x](https://example.org/x.png)"}, "example"),
    ({"ws": "tiny", "layer": LAYER, "picture": "10000000"}, "10000000"),
    ({"ws": "tiny", "layer": LAYER, "by": "x" * 5000}, "left out"),
    ({"ws": "tiny", "layer": LAYER, "seed": "\x00\x1b"}, "left out"),
]


@pytest.mark.parametrize(("query", "shown"), BAD, ids=[next(reversed(q)) + "-" + s for q, s in BAD])
def test_bad_links_fall_back_with_a_note(
    serve: Serve, answered: Backend, query: dict[str, str], shown: str
) -> None:
    serve(answered)
    app = visit(NEURON, **query, **({"lower": LOWER} if "layer" in query else {}))
    assert not app.exception
    assert not app.error
    notes = [each.value for each in app.warning]
    assert len(notes) == 1, notes
    assert shown in notes[0]
    assert "<img" not in notes[0].replace("\\<", "")
    assert "![" not in notes[0]
    assert app.title[0].value.startswith("Neuron ")
    wrong = next(reversed(query))
    assert address(app, wrong) != query[wrong], "the link is put right"


def test_a_link_with_unknown_names_is_harmless(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = visit(NEURON, **HERE, k="2", utm_source="x", __proto__="y")
    assert not app.exception
    assert not app.warning
    assert "__proto__" not in app.query_params


def test_no_parameter_of_a_method_takes_a_name_of_the_address() -> None:
    params = {each.name for method in METHODS.values() for each in fields(method.Params)}
    assert not params & set(NAMES)


def test_a_failed_question_says_why_and_can_be_asked_again(serve: Serve, answered: Backend) -> None:
    settings = answered.settings
    serve(answered)
    assert not visit(NEURON, **HERE).exception  # so that only this split is waited for
    serve(Backend(settings))
    app = visit(NEURON, **HERE, k="3", seed="77")
    queue = Jobs(settings.cache_dir)
    job = queue.claim("tester")
    assert job is not None
    assert "Splitting" in job.title
    queue.fail(job.key, "It went <b>wrong</b>: choose another k.")
    app.run()
    assert [each.value for each in app.error] == [
        "It went \\<b\\>wrong\\</b\\>\\: choose another k\\."
    ]
    assert components(app, "gallery"), "the rest of the page stays"
    next(each for each in app.button if each.label == "Retry").click().run()
    assert not app.error
    assert "Splitting" in words(app)
    next(each for each in app.button if each.key == f"cancel-{job.key}").click().run()
    assert "cancelled" in words(app)


def test_a_read_only_explorer_shows_what_it_has(serve: Serve, answered: Backend) -> None:
    serve(Backend(replace(answered.settings, read_only=True)))
    app = visit(NEURON, **HERE, k="7", seed="5")
    assert not app.exception
    assert not app.error
    assert "read-only" in words(app)
    assert components(app, "gallery")


def test_an_unexpected_error_becomes_one_sentence(
    serve: Serve, answered: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(answered)

    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(answered, "table", broken)
    app = visit(NEURONS, ws="tiny", layer=LAYER)
    assert not app.exception
    assert [each.value for each in app.error] == [
        "This page could not be drawn, and it is a fault of ours: the log says more."
    ]


def test_settings_that_cannot_be_read_are_one_sentence(
    serve: Serve, answered: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    from explorer.settings import load_settings

    serve(answered)
    monkeypatch.setattr(session, "load_settings", lambda: load_settings({"EXPLORER_CASH": "1"}))
    session.backend.clear()
    app = visit()
    assert not app.exception
    assert "EXPLORER\\_CASH is not a setting" in app.error[0].value


def test_about_is_drawn_from_the_registries(serve: Serve, answered: Backend) -> None:
    serve(answered)
    app = visit(ABOUT)
    assert not app.exception
    assert not app.error
    said = words(app)
    for method in METHODS.values():
        assert method.title in said
    assert len(app.get("latex")) + len(list(app.latex)) > 0
