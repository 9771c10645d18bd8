"""Every method on planted neurons, against a lab whose answers are known."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from explorer.compute.clustering import adjusted_rand
from explorer.methods.params import read_params
from explorer.methods.registry import METHODS, method_named
from explorer.records import (
    BadInput,
    Cancelled,
    ImageSet,
    Layer,
    NetworkInfo,
    Neuron,
    NoCluster,
    Preprocess,
    ReferenceQuery,
    References,
    Scan,
)

CHANNELS = 24
NEURON = Neuron("test", "upper", 0)


def silent(fraction: float, message: str) -> None:
    """Progress nobody watches."""


class PlantedLab:
    """A neuron whose references use ``circuits`` disjoint sets of lower channels."""

    def __init__(self, circuits: int, references: int = 60, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.truth = np.arange(references) % circuits
        width = CHANNELS // circuits
        self.rows = np.abs(generator.normal(0, 0.05, (references, CHANNELS)))
        for image, circuit in enumerate(self.truth):
            used = slice(circuit * width, (circuit + 1) * width)
            self.rows[image, used] += generator.gamma(8, 0.25, width)
        self.rows *= generator.gamma(4, 1, (references, 1))  # strength must not matter
        self.references_ = References(
            NEURON,
            ReferenceQuery(count=references),
            np.arange(references),
            np.linspace(9, 1, references, dtype=np.float32),
            np.zeros(references, np.int64),
        )

    @property
    def network(self) -> NetworkInfo:
        lower = Layer("lower", CHANNELS, 7, 7, True, None, (), "")
        near = Layer("near", 1, 7, 7, True, None, (), "")
        upper = Layer("upper", 1, 7, 7, True, None, ("lower",), "lower")
        view = Preprocess(8, 8, "bilinear", (0, 0, 0), (1, 1, 1))
        return NetworkInfo("t", "w", "d", 1, (lower, near, upper), "upper", view, (), "")

    @property
    def images(self) -> ImageSet:
        count = len(self.truth)
        paths = tuple(map(str, range(count)))
        nothing = np.full(count, -1, np.int32)
        return ImageSet("t", "", "d", paths, nothing, (), np.arange(count, dtype=np.int32), "")

    def scan(self, layer: str, report: object) -> Scan:
        raise AssertionError("not asked for here")

    def references(self, neuron: Neuron, query: ReferenceQuery, report: object) -> References:
        return replace(self.references_, query=query)

    def relevance(
        self, references: References, lower: Layer, attribution: str, report: object
    ) -> np.ndarray:
        assert lower.name == "lower"
        return self.rows.astype(np.float32)

    def activations(self, layer: str, index: np.ndarray, report: object) -> np.ndarray:
        return self.rows[index].astype(np.float32)

    def embed_references(
        self, references: References, embedder: str, report: object
    ) -> tuple[np.ndarray, str]:
        unit = self.rows / np.linalg.norm(self.rows, axis=1, keepdims=True)
        return unit.astype(np.float32), embedder or "planted"


CLUSTERING = ("pure", "embedding")
"""Methods that must find planted circuits whatever their strength."""

WITH_K = [name for name, each in METHODS.items() if hasattr(each.Params(), "k")]


@pytest.mark.parametrize("name", CLUSTERING)
@pytest.mark.parametrize("circuits", [2, 3])
def test_planted_circuits_are_recovered_at_known_k(name: str, circuits: int) -> None:
    lab = PlantedLab(circuits)
    method = METHODS[name]
    params = read_params(method.Params, {"k": circuits})
    split = method.split(lab, lab.references_, params, silent)
    assert split.k == circuits
    assert adjusted_rand(split.labels, lab.truth) == pytest.approx(1)
    assert split.scores["silhouette"] > split.scores["null_silhouette"]
    assert list(split.sizes) == sorted(split.sizes, reverse=True)
    assert split.centroid.shape == (circuits, CHANNELS)
    assert split.map.shape == (60, 2)


def test_references_without_relevance_belong_to_no_virtual_neuron() -> None:
    lab = PlantedLab(2, references=40)
    lab.rows[5:25] = 0
    method = METHODS["pure"]
    split = method.split(lab, lab.references_, read_params(method.Params, {"k": 2}), silent)
    assert (split.labels[5:25] == -1).all()
    rest = np.r_[0:5, 25:40]
    assert adjusted_rand(split.labels[rest], lab.truth[rest]) == pytest.approx(1)
    assert split.scores["outliers"] == 0.5
    labels, _ = method.assign(lab.rows.astype(np.float32), split)
    assert (labels[5:25] == -1).all()


def test_a_neuron_at_its_bias_everywhere_is_refused() -> None:
    lab = PlantedLab(2)
    lab.rows[:] = 0
    method = METHODS["pure"]
    with pytest.raises(NoCluster, match="is at its bias"):
        method.split(lab, lab.references_, method.Params(), silent)


@pytest.mark.parametrize("circuits", [1, 2, 3])
def test_auto_finds_how_many_circuits_there_are(circuits: int) -> None:
    lab = PlantedLab(circuits, references=100)
    method = METHODS["pure"]
    split = method.split(lab, lab.references_, read_params(method.Params, {}), silent)
    assert split.k == circuits
    assert split.params["lower"] == "lower"


@pytest.mark.parametrize("name", METHODS)
def test_the_same_question_has_the_same_answer(name: str) -> None:
    lab = PlantedLab(2)
    method = METHODS[name]
    params = read_params(method.Params, {"seed": 7} | ({"k": 4} if name in WITH_K else {}))
    first, second = (method.split(lab, lab.references_, params, silent) for _ in range(2))
    assert np.array_equal(first.strength, second.strength)
    assert np.array_equal(first.centroid, second.centroid)
    assert first.seed == 7


@pytest.mark.parametrize("name", WITH_K)
def test_too_few_references_are_refused(name: str) -> None:
    lab = PlantedLab(2, references=4)
    method = METHODS[name]
    with pytest.raises(BadInput, match="4"):
        method.split(lab, lab.references_, read_params(method.Params, {"k": 5}), silent)


def test_random_labels_ignore_the_pictures_and_are_even() -> None:
    lab = PlantedLab(2, references=400)
    method = METHODS["random"]
    split = method.split(lab, lab.references_, read_params(method.Params, {"k": 4}), silent)
    assert split.sizes == (100, 100, 100, 100)
    assert abs(adjusted_rand(split.labels, lab.truth)) < 0.02


def test_activations_find_circuits_that_leave_a_trace_in_the_layer() -> None:
    lab = even(2)
    method = METHODS["activations"]
    split = method.split(lab, lab.references_, read_params(method.Params, {"k": 2}), silent)
    assert adjusted_rand(split.labels, lab.truth) == pytest.approx(1)


def even(circuits: int, **kwargs: int) -> PlantedLab:
    """A planted lab whose references are all equally strong."""
    lab = PlantedLab(circuits, **kwargs)
    lab.rows /= lab.rows.sum(axis=1, keepdims=True)
    return lab


@pytest.mark.parametrize("circuits", [2, 3])
def test_concept_vectors_point_along_planted_concepts(circuits: int) -> None:
    lab = even(circuits)
    method = METHODS["concept_vectors"]
    split = method.split(lab, lab.references_, method.Params(), silent)
    assert adjusted_rand(split.labels, lab.truth) == pytest.approx(1)
    assert np.linalg.norm(split.centroid, axis=1) == pytest.approx(1)
    for vector, members in zip(split.centroid, range(split.k), strict=True):
        mean = lab.rows[split.labels == members].mean(axis=0)
        assert vector @ mean / np.linalg.norm(mean) == pytest.approx(1, abs=1e-5)
    assert np.allclose(np.diag(split.provenance["between"]), 1, atol=1e-5)
    labels, ratio = method.assign(lab.rows.astype(np.float32), split)
    assert np.array_equal(labels, split.labels)
    assert (ratio < 1).all()


def test_separation_runs_from_many_concepts_to_one() -> None:
    lab = even(3)
    method = METHODS["concept_vectors"]
    found = [
        method.split(
            lab,
            lab.references_,
            read_params(method.Params, {"separation": separation, "smallest": 1, "radius": 5.0}),
            silent,
        ).k
        for separation in (0.02, 0.5, 3.0)
    ]
    assert found[0] > found[1] == 3
    assert found[2] == 1


def test_thresholds_do_not_depend_on_the_scale_of_the_layer() -> None:
    method = METHODS["concept_vectors"]
    small, large = even(2), even(2)
    large.rows *= 1000
    first, second = (
        method.split(lab, lab.references_, method.Params(), silent) for lab in (small, large)
    )
    assert np.array_equal(first.strength, second.strength)


def test_far_references_belong_to_no_concept() -> None:
    lab = even(2)
    lab.rows[0] = 0
    lab.rows[0, 23] = 5
    method = METHODS["concept_vectors"]
    split = method.split(lab, lab.references_, method.Params(), silent)
    assert split.labels[0] == -1
    assert split.strength[:, 0].sum() == 0


def test_references_all_alike_have_no_concepts() -> None:
    lab = even(2)
    lab.rows[:] = 1
    method = METHODS["concept_vectors"]
    with pytest.raises(NoCluster, match="alike"):
        method.split(lab, lab.references_, method.Params(), silent)


def test_settings_that_leave_no_concept_say_what_to_change() -> None:
    lab = even(2)
    method = METHODS["concept_vectors"]
    params = read_params(method.Params, {"separation": 0.02, "smallest": 20})
    with pytest.raises(NoCluster, match="raise the separation"):
        method.split(lab, lab.references_, params, silent)


def test_the_paper_ranks_by_mean_and_cuts_at_fifteen() -> None:
    lab = even(2)
    lab.rows *= 20
    method = METHODS["concept_vectors"]
    params = read_params(method.Params, {"mode": "paper"})
    split = method.split(lab, lab.references_, params, silent)
    assert split.provenance["cut"] == 15
    assert method.query(lab.references_.query, params).by == "mean"


def test_a_cancelled_split_stops() -> None:
    def stop(fraction: float, message: str) -> None:
        raise Cancelled("stop")

    lab = PlantedLab(2)
    method = METHODS["pure"]
    with pytest.raises(Cancelled):
        method.split(lab, lab.references_, read_params(method.Params, {}), stop)


@pytest.mark.parametrize("lower", ["near", "upper", "nowhere"])
def test_a_layer_that_cannot_explain_is_refused(lower: str) -> None:
    lab = PlantedLab(2)
    method = METHODS["pure"]
    with pytest.raises(BadInput, match=lower):
        method.split(lab, lab.references_, read_params(method.Params, {"lower": lower}), silent)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_describes_itself(name: str) -> None:
    method = method_named(name)
    assert method.name == name
    assert method.version >= 1
    assert method.citation
    for each in fields(method.Params):
        assert each.metadata["label"], each.name
        assert each.metadata["help"], each.name
    assert read_params(method.Params, {}) == method.Params()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"k": 9}, "between 0 and 8"),
        ({"k": "2"}, "k is a int"),
        ({"k": True}, "k is a int"),
        ({"attribution": "magic"}, "one of gradient, lrp"),
        ({"colour": 1}, "no parameter 'colour'"),
    ],
)
def test_wrong_parameters_are_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        read_params(METHODS["pure"].Params, given)


def test_an_unknown_method_lists_the_known() -> None:
    with pytest.raises(BadInput, match="pure"):
        method_named("magic")


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [("activations", {"k": 2}, "only 1 distinct rows"), ("concept_vectors", {}, "all alike")],
)
def test_references_that_are_all_alike_cannot_be_divided(
    name: str, given: dict[str, int], sentence: str
) -> None:
    lab = PlantedLab(2)
    lab.rows[:] = 1.0
    method = METHODS[name]
    with pytest.raises(NoCluster, match=sentence):
        method.split(lab, lab.references_, read_params(method.Params, given), silent)
