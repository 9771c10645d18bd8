"""The benchmark of planted neurons: its scores, its truth, its refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import JUDGE, LAYER, LOWER, NETWORK, WEIGHTS, draw_pictures, tiny_settings, wait

from explorer.__main__ import main
from explorer.backend import Asker, Backend
from explorer.compute import attribution
from explorer.compute.device_lab import DeviceLab
from explorer.compute.planted_lab import PlantedLab
from explorer.compute.plants import plants, weights
from explorer.compute.scan import to_input
from explorer.images import sets
from explorer.images.pictures import view
from explorer.networks.graph import Network
from explorer.networks.planting import plant
from explorer.networks.zoo import load
from explorer.records import BadInput, ImageSet, Plant, Planted, Planting, ReferenceQuery, Sum
from explorer.scores.planted import average, confusion, recovery
from explorer.session import InlineQueue

ASKER = Asker("tester", "test")
ASKED = Planting(
    LAYER,
    pairs=2,
    methods=("pure", "activations", "concept_vectors"),
    lowers=(LOWER,),
    references=ReferenceQuery(count=12),
    mixes=(1.0, 0.7),
)


def test_recovery_is_one_for_the_truth_under_any_names_and_zero_by_chance() -> None:
    truth = np.repeat([0, 1], 50)
    assert recovery(truth, 1 - truth) == 1.0
    random = np.random.default_rng(0)
    drawn = [recovery(truth, random.integers(0, 2, 100)) for _ in range(300)]
    assert abs(np.mean(drawn)) < 0.005


def test_references_of_unknown_origin_do_not_count_and_outliers_do() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1, -1, -1])
    assert recovery(truth, np.array([0, 0, 0, 1, 1, 1, 0, 1])) == 1.0
    assert recovery(truth, np.array([0, 0, -1, 1, 1, 1, 0, 1])) < 1.0
    assert np.isnan(recovery(np.array([0, 0, -1]), np.array([0, 1, 1])))
    with pytest.raises(BadInput, match="same references"):
        recovery(truth, truth[:3])


def test_an_average_has_its_standard_error_and_its_n() -> None:
    found = average([0.0, 1.0, 0.5, float("nan")])
    assert (found.value, found.n) == (0.5, 3)
    assert found.se == pytest.approx(0.5 / np.sqrt(3))
    assert np.isnan(average([]).value)


def test_confusion_counts_what_was_chosen_for_each_known_number() -> None:
    known, counts = confusion(np.array([1, 1, 2, 3, 3]), np.array([1, 2, 2, 2, 0]), 4)
    assert known.tolist() == [1, 2, 3]
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
    with pytest.raises(BadInput, match="between 0 and 4"):
        confusion(np.array([1]), np.array([5]), 4)


# What is planted, on a small network.


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures"), 14)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network.build(load(NETWORK, WEIGHTS))


@pytest.fixture
def backend(tmp_path: Path, pictures: Path) -> Backend:
    settings = tiny_settings(tmp_path, pictures)
    return Backend(settings, InlineQueue(settings))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Planted:
    settings = tiny_settings(tmp_path_factory.mktemp("found"), pictures)
    backend = Backend(settings, InlineQueue(settings))
    return wait(lambda: backend.studies.planted("tiny", ASKED, ASKER))


SUMS = (
    Sum((3, 8), (0.5, 2.0), "far", 1.0, 0.0),
    Sum((1, 5, 9), (1.0, 1.0, 1.0), "near", 1.0, 0.0),
)


PARTS = tuple(zip(SUMS[0].sources, SUMS[0].weights, strict=True))


def test_a_planted_channel_is_the_sum_and_relevance_starts_from_it(network: Network) -> None:
    x = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    part = network.slice(LOWER, LAYER)
    inputs = network.inputs(x, part)
    z = part.module(*inputs)
    made = plant(part, weights(SUMS, z.shape[1], network.device))
    value = made.module(*inputs)
    expected = torch.stack(
        [sum(w * z[:, c].relu() for c, w in zip(s.sources, s.weights, strict=True)) for s in SUMS],
        1,
    )
    torch.testing.assert_close(value, expected)
    assert part.module(*inputs).shape == z.shape  # the layer itself is as it was

    lower, *others = (each.clone() for each in inputs)
    lower.requires_grad_()
    z = part.module(lower, *others)
    start = (0.5 * z[:, 3].relu() + 2 * z[:, 8].relu()).detach()
    seed = torch.zeros_like(z)
    seed[:, 3], seed[:, 8] = 0.5 * start * (z[:, 3] > 0), 2 * start * (z[:, 8] > 0)
    (gradient,) = torch.autograd.grad(z, lower, seed)
    rows, channels = torch.arange(4), torch.zeros(4, dtype=torch.long)
    pulled = attribution.relevance(made, inputs, channels, rows)
    torch.testing.assert_close(pulled, (gradient * lower).sum((2, 3)).detach())


def test_lrp_gives_each_source_its_part(network: Network) -> None:
    x = torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    part = network.slice(LOWER, LAYER)
    inputs = network.inputs(x, part)
    total = part.module(*inputs).shape[1]
    both, *single = (
        attribution.relevance(
            plant(part, weights([each], total, network.device)),
            inputs,
            torch.zeros(3, dtype=torch.long),
            torch.arange(3),
            "lrp",
        )
        for each in (SUMS[0], *(replace(SUMS[0], sources=(c,), weights=(w,)) for c, w in PARTS))
    )
    torch.testing.assert_close(both, single[0] + single[1], rtol=1e-3, atol=1e-5)


def test_references_and_truth_are_those_of_the_whole_maps(
    network: Network, pictures: Path, tmp_path: Path
) -> None:
    images = sets.open_set(str(pictures), tmp_path)
    made = plants(network, images, LAYER, SUMS, 12, lambda *_: None)
    maps = all_maps(network, images)
    for each, plant_ in zip(SUMS, made, strict=True):
        parts = maps[:, list(each.sources)] * np.array(each.weights)[:, None]
        whole = parts.sum(axis=1)
        best = np.argsort(-whole.max(axis=1), kind="stable")[:12]
        assert plant_.index.tolist() == best.tolist()
        place = whole[best].argmax(axis=1)
        assert plant_.position.tolist() == place.tolist()
        there = parts[best, :, place]
        assert plant_.truth.tolist() == there.argmax(axis=1).tolist()
        np.testing.assert_allclose(plant_.share, there.max(1) / there.sum(1), rtol=1e-5)
        np.testing.assert_allclose(plant_.mean, whole[best].mean(axis=1), rtol=1e-5)


def all_maps(network: Network, images: ImageSet) -> np.ndarray:
    """f64[N,C,S]: the rectified, unclipped maps of every picture."""
    views = [view(images.root, path, network.info.preprocess) for path in images.paths]
    parts = [network.features(to_input(v[None], network), [LAYER])[LAYER] for v in views]
    return torch.cat(parts).flatten(2).relu().double().numpy()


def test_sources_are_clean_disjoint_and_used_once(found: Planted) -> None:
    for regime in ("far", "near"):
        used = [c for s in found.sums if (s.regime, s.mix) == (regime, 1.0) for c in s.sources]
        assert len(used) == len(set(used)) == 4
    apart = {
        regime: [s.distance for s in found.sums if s.regime == regime] for regime in ("far", "near")
    }
    assert min(apart["far"]) > max(apart["near"])
    clean = [s for s in found.sums if s.regime == "clean"]
    assert len(clean) == 2
    assert all(len(s.sources) == 1 for s in clean)


def test_every_kind_has_its_rows_with_ceiling_and_chance(found: Planted) -> None:
    rows = {(row.method, row.regime, row.mix): row for row in found.rows}
    assert rows["ceiling", "far", 1.0].ari > 0.3
    assert rows["random", "far", 1.0].ari < rows["ceiling", "far", 1.0].ari
    assert rows["pure", "near", 1.0].lower == LOWER
    assert rows["pure", "near", 1.0].n == 2
    assert rows["concept_vectors", "far", 1.0].n == 0  # it finds k itself
    counted = {(c.method, c.regime) for c in found.confusion}
    assert ("pure", "clean") in counted
    assert ("random", "far") not in counted


def test_methods_do_not_see_the_sources(found: Planted, backend: Backend) -> None:
    wait(lambda: backend.table("tiny", LAYER, ASKER))
    lab, made = planted_lab(backend)
    rows = lab.activations(LAYER, made.index, lambda *_: None)
    assert rows.shape[1] == lab.network.layer(LAYER).channels
    assert not rows[:, [3, 8]].any()
    np.testing.assert_array_equal(rows[:, -1], made.mean)
    assert rows[:, [c for c in range(rows.shape[1]) if c not in (3, 8)]].any()


def planted_lab(backend: Backend) -> tuple[PlantedLab, Plant]:
    """The Lab of the first sum."""
    answers = backend._desk.queue._answers  # type: ignore[attr-defined]
    (lab,) = answers._room._labs.values()
    assert isinstance(lab, DeviceLab)
    (made,) = plants(lab.model, lab.images, LAYER, SUMS[:1], 12, lambda *_: None)
    return PlantedLab(lab, LAYER, made, {}), made


def test_the_same_numbers_again_and_none_computed_twice(
    found: Planted, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = wait(lambda: backend.studies.planted("tiny", ASKED, ASKER))
    np.testing.assert_array_equal(again.known, found.known)
    np.testing.assert_array_equal(again.auto, found.auto)
    assert again.rows == found.rows
    monkeypatch.setattr("explorer.answers.planted._divided", lambda *_: pytest.fail("anew"))
    half = wait(lambda: backend.studies.planted("tiny", replace(ASKED, half="report"), ASKER))
    other = wait(lambda: backend.studies.planted("tiny", replace(ASKED, half="development"), ASKER))
    assert sorted(map(str, (*half.sums, *other.sums))) == sorted(map(str, found.sums))


def test_three_sources_and_their_refusal(backend: Backend) -> None:
    many = replace(ASKED, pairs=40, groups=(2, 3))
    with pytest.raises(BadInput, match=r"not 40 of each kind .* 0 \(far, 3 sources\); \d+ \(near"):
        wait(lambda: backend.studies.planted("tiny", many, ASKER))
    crowded = replace(ASKED, references=ReferenceQuery(count=30))
    with pytest.raises(BadInput, match="at least 60 pictures"):
        wait(lambda: backend.studies.planted("tiny", crowded, ASKER))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pairs": 0}, "Plant 1 to"),
        ({"groups": (1,)}, "sums of 2 to 4"),
        ({"mixes": (0.0,)}, "mixing ratio"),
        ({"regimes": ("odd",)}, "far or near"),
        ({"half": "left"}, "half is one of"),
        ({"methods": ("pure:k=2",)}, "leave k out"),
        ({"layer": "fc"}, "rectified layer"),
        ({"lowers": ("nowhere",)}, "no layer 'nowhere'"),
    ],
)
def test_what_cannot_be_planted_is_refused(
    backend: Backend, change: dict[str, object], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        wait(lambda: backend.studies.planted("tiny", replace(ASKED, **change), ASKER))  # type: ignore[arg-type]


def test_the_command_prints_what_it_promises(
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXPLORER_CACHE_DIR", str(tmp_path))
    about = [
        "--network",
        NETWORK,
        "--weights",
        WEIGHTS,
        "--images",
        str(pictures),
        "--embedder",
        JUDGE,
    ]
    argv = ["planted", LAYER, *about, "--pairs", "1", "--references", "12", "--lower", LOWER]
    assert main([*argv, "--methods", "pure", "--per-neuron", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {row["method"] for row in printed["rows"]} == {"ceiling", "pure", "random"}
    assert set(printed["ceiling"]) == set(printed["random"]) == {"far", "near"}
    assert len(printed["sums"]) == len(printed["rows"][0]["known"]) == 3
