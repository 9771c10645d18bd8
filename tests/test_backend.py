"""The backend end to end, on a real small network, computing in this process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import JUDGE, LAYER, LOWER, NETWORK, draw_pictures, tiny_settings, wait

from explorer.answers.neuron import REFERENCES, STRONGEST, shown_at_first
from explorer.backend import Asker, Backend, SplitQuestion
from explorer.records import (
    BadInput,
    Crops,
    DeadNeuron,
    Neuron,
    ReferenceQuery,
    Split,
    Status,
)
from explorer.session import InlineQueue
from explorer.settings import Settings
from explorer.ui import neuron, virtual

ASKER = Asker("tester", "test")
NEURON = Neuron("tiny", LAYER, 3)
QUERY = ReferenceQuery(count=12)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("backend")
    return tiny_settings(folder, draw_pictures(folder / "pictures"))


@pytest.fixture(scope="module")
def backend(settings: Settings) -> Backend:
    return Backend(settings, InlineQueue(settings))


def split_of(backend: Backend, **params: Any) -> Split:
    question = SplitQuestion(NEURON, "pure", {"lower": LOWER} | params, QUERY)
    return wait(lambda: backend.split(question, ASKER))


def test_a_split_describes_its_references(backend: Backend) -> None:
    split = split_of(backend, k=2)
    assert split.k == 2
    assert split.strength.shape == (2, 12)
    assert np.array_equal(split.strength.sum(axis=0), np.ones(12))
    assert sum(split.sizes) == 12
    assert split.space == split.params["lower"]
    assert np.abs(split.centroid).sum(axis=1) == pytest.approx(1, abs=0.2)
    assert -1 <= split.scores["silhouette"] <= 1
    assert split.provenance["profile"]["k"][0] == 2


def test_lrp_and_gradient_are_both_offered(backend: Backend) -> None:
    gradient, lrp = (split_of(backend, k=2, attribution=rule) for rule in ("gradient", "lrp"))
    assert gradient.centroid.shape == lrp.centroid.shape
    assert not np.allclose(gradient.centroid, lrp.centroid)


def test_a_rebuilt_cache_gives_identical_labels(
    backend: Backend, settings: Settings, tmp_path: Path
) -> None:
    again = replace(settings, cache_dir=tmp_path / "other")
    other = split_of(Backend(again, InlineQueue(again)), k=3)
    first = split_of(backend, k=3)
    assert np.array_equal(first.strength, other.strength)
    assert np.array_equal(first.centroid, other.centroid)


def test_stored_answers_need_no_device(backend: Backend, settings: Settings) -> None:
    split_of(backend, k=2)
    only_read = Backend(replace(settings, read_only=True))
    assert split_of(only_read, k=2).k == 2
    with pytest.raises(BadInput, match="read-only"):
        split_of(only_read, k=4)


def test_crops_lie_in_the_view_and_have_heat(backend: Backend) -> None:
    crops = wait(lambda: backend.crops(NEURON, QUERY, ASKER))
    assert crops.box.shape == (12, 4)
    assert (crops.box >= 0).all()
    assert (crops.box <= 160).all()
    assert (crops.box[:, 2] > crops.box[:, 0]).all()
    assert crops.heat.max() == 255
    assert crops.rule == "lrp"


def test_the_first_crops_can_be_had_before_the_others(settings: Settings, tmp_path: Path) -> None:
    again = replace(settings, cache_dir=tmp_path / "other")
    backend = Backend(again, InlineQueue(again))
    query = ReferenceQuery(count=24)
    waits = backend.crops(NEURON, query, ASKER)
    while isinstance(waits, Status) and not waits.key.startswith("crops"):
        waits = backend.crops(NEURON, query, ASKER)
    some = backend.begun(waits.key)
    crops = wait(lambda: backend.crops(NEURON, query, ASKER))
    assert 16 <= len(some.index) < len(crops.index) == 24
    for field in ("index", "box", "heat", "degenerate"):
        found, whole = getattr(some, field), getattr(crops, field)
        assert np.array_equal(found, whole[: len(found)])
    assert backend.begun("crops:of:nothing") is None


def test_crops_that_a_page_shows_can_be_had_first(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = replace(settings, cache_dir=tmp_path / "other")
    backend = Backend(again, InlineQueue(again))
    query = ReferenceQuery(count=24)
    split = wait(lambda: backend.split(SplitQuestion(NEURON, references=query), ASKER))
    index = split.references.index
    labels = np.arange(24) // 20
    two = replace(split, strength=(labels == np.arange(2)[:, None]).astype(np.float32))
    assert shown_at_first(two) == index[[*range(16), *range(20, 24)]].tolist()
    monkeypatch.setattr("explorer.answers.neuron.shown_at_first", lambda found: index[[20, 3]])
    waits = backend.crops(NEURON, query, ASKER)
    assert isinstance(waits, Status)
    some = backend.begun(waits.key)
    crops = wait(lambda: backend.crops(NEURON, query, ASKER))
    assert np.array_equal(some.index, index[[3, 20]])
    assert np.array_equal(some.heat, crops.heat[[3, 20]])
    assert np.array_equal(crops.index, index)


def test_a_singular_direction_has_whole_pictures_for_crops(backend: Backend) -> None:
    query = ReferenceQuery(by="singular", count=12)
    crops = wait(lambda: backend.crops(Neuron("tiny", LAYER, 0), query, ASKER))
    assert crops.rule == "none"
    assert crops.degenerate.all()


def test_what_is_shown_at_first_is_what_the_page_shows() -> None:
    assert (neuron.PAGE, virtual.FIRST) == (REFERENCES, STRONGEST)


@pytest.mark.parametrize("style", ["whole", "crop", "heat", "mask"])
def test_thumbnails_are_webp_and_kept(backend: Backend, style: str) -> None:
    crops = wait(lambda: backend.crops(NEURON, QUERY, ASKER))
    index = [int(image) for image in crops.index[:3]]
    first = wait(lambda: backend.thumbnails("tiny", index, ASKER, style, crops, 64))
    again = wait(lambda: backend.thumbnails("tiny", index, ASKER, style, crops, 64))
    assert first == again
    assert all(each[:4] == b"RIFF" and each[8:12] == b"WEBP" for each in first)


def test_alignment_carries_nulls(backend: Backend) -> None:
    question = SplitQuestion(NEURON, "pure", {"k": 2, "lower": LOWER}, QUERY)
    found = wait(lambda: backend.alignment(question, ASKER))
    assert found.embedder == JUDGE
    assert found.gap.value == pytest.approx(found.inter.value - found.intra.value)
    assert found.gap.n == 12
    assert np.isfinite(found.gap.null)


def test_the_split_assigns_its_own_references_to_themselves(backend: Backend) -> None:
    question = SplitQuestion(NEURON, "pure", {"k": 2, "lower": LOWER}, QUERY)
    split = split_of(backend, k=2)
    found = wait(lambda: backend.assignment(question, QUERY, ASKER))
    assert np.array_equal(found.label, split.labels)
    assert (found.ratio <= 1).all()


def test_the_table_and_the_histogram_agree(backend: Backend) -> None:
    table = wait(lambda: backend.table("tiny", LAYER, ASKER))
    counts = wait(lambda: backend.histogram(NEURON, 10, ASKER))
    assert counts.counts.sum() + counts.zero == 30
    assert counts.counts.sum() / 30 == pytest.approx(table.density[3])
    references = wait(lambda: backend.references(NEURON, ReferenceQuery(count=5), ASKER))
    assert references.index.tolist() == table.top[3, :5].tolist()
    images = wait(lambda: backend.images("tiny", ASKER))
    assert images.label_names == ("disc", "square", "stripes")


def test_silhouettes_show_only_what_is_computed(backend: Backend) -> None:
    default = SplitQuestion(Neuron("tiny", LAYER, 5))
    split = wait(lambda: backend.split(default, ASKER))
    found = wait(lambda: backend.silhouettes("tiny", LAYER, ASKER))
    assert np.isnan(found[6])
    if split.k > 1:
        assert found[5] == pytest.approx(split.scores["silhouette"])


def test_a_projection_has_a_point_per_reference(backend: Backend) -> None:
    question = SplitQuestion(NEURON, "pure", {"k": 2, "lower": LOWER}, QUERY)
    found = wait(lambda: backend.projection(question, ASKER))
    assert found.map.shape == (12, 2)
    assert np.isfinite(found.map).all()


@pytest.mark.parametrize("form", ["pdf", "svg", "png"])
def test_a_figure_comes_from_its_recipe(backend: Backend, form: str) -> None:
    recipe = {
        "figure": "virtual_neurons",
        "workspace": "tiny",
        "neuron": NEURON.address,
        "params": {"k": 2, "lower": LOWER},
        "references": {"count": 12},
    }
    found = wait(lambda: backend.figure(recipe, form, ASKER))
    start = {"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}[form]
    assert found.data.tobytes().startswith(start)


@pytest.mark.parametrize(
    ("neuron", "sentence"),
    [
        (Neuron("tiny", "layer9", 0), "no layer 'layer9'"),
        (Neuron("tiny", LAYER, 10**6), "channels 0 to 95"),
        (Neuron("nowhere", LAYER, 0), "no workspace 'nowhere'"),
    ],
)
def test_unknown_names_are_refused(backend: Backend, neuron: Neuron, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        wait(lambda: backend.split(SplitQuestion(neuron), ASKER))


@pytest.mark.parametrize("text", ["", " ", "x" * 500, "a\x00b"])
def test_impossible_searches_are_refused(backend: Backend, text: str) -> None:
    with pytest.raises(BadInput):
        wait(lambda: backend.search("tiny", LAYER, text, ASKER))


def test_a_dead_neuron_has_no_references(backend: Backend) -> None:
    table = wait(lambda: backend.table("tiny", LAYER, ASKER))
    dead = np.flatnonzero(~table.alive)
    if not dead.size:
        pytest.skip("every neuron of the untrained network fires")
    with pytest.raises(DeadNeuron):
        wait(lambda: backend.references(Neuron("tiny", LAYER, int(dead[0])), QUERY, ASKER))


def test_new_pictures_make_new_keys_and_lose_nothing(tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "pictures", each=4)
    settings = tiny_settings(tmp_path, pictures)
    query = ReferenceQuery(count=4)

    def crops() -> Crops:
        fresh = Backend(settings, InlineQueue(settings))
        return wait(lambda: fresh.crops(NEURON, query, ASKER))

    before = crops()
    extra = pictures / "disc" / "extra.png"
    Image.new("RGB", (90, 90), (255, 0, 0)).save(extra)
    crops()
    extra.unlink()
    assert np.array_equal(crops().heat, before.heat)


def test_pictures_that_cannot_be_read_are_skipped_and_counted(tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "pictures", each=3)
    (pictures / "disc" / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    (pictures / "disc" / "empty.png").write_bytes(b"")
    settings = tiny_settings(tmp_path, pictures)
    backend = Backend(settings, InlineQueue(settings))
    report = wait(lambda: backend.scan("tiny", [LAYER], ASKER))
    assert report.images == 11
    assert [path for path, _ in report.skipped] == ["disc/broken.jpg", "disc/empty.png"]
    references = wait(lambda: backend.references(NEURON, ReferenceQuery(count=11), ASKER))
    names = wait(lambda: backend.images("tiny", ASKER)).paths
    assert not {names[int(i)] for i in references.index} & {path for path, _ in report.skipped}


def test_the_web_process_starts_without_torch() -> None:
    program = (
        "import sys, explorer.backend; "
        "heavy = {'torch', 'timm', 'zennit', 'open_clip', 'sklearn', 'matplotlib', 'streamlit'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_workspace_names_what_it_is(backend: Backend) -> None:
    network = wait(lambda: backend.network("tiny", ASKER))
    assert network.source == NETWORK
    assert "untrained" in network.notice
    scanned = wait(lambda: backend.scanned("tiny", ASKER))
    assert set(scanned) == {layer.name for layer in network.layers}
