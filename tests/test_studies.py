"""Many neurons at a time, end to end on a real small network: sweeps, comparisons, rankings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from tiny import (
    JUDGE,
    LAYER,
    LOWER,
    draw_pictures,
    surround,
    tiny_settings,
    wait,
    write_config,
)

from explorer import browse
from explorer.__main__ import main
from explorer.answers import foresight
from explorer.answers import layer as answers
from explorer.backend import Asker, Backend, SplitQuestion, Study
from explorer.compute import beside
from explorer.compute.device_lab import DeviceLab
from explorer.compute.shelf import Shelf
from explorer.exports import plain
from explorer.methods import variants
from explorer.methods.registry import METHODS
from explorer.records import (
    BadInput,
    Evaluation,
    LayerTable,
    Neuron,
    NoCluster,
    ReferenceQuery,
    Split,
    Status,
    Unavailable,
)
from explorer.scores.evaluation import Measured
from explorer.session import InlineQueue
from explorer.settings import Settings

ASKER = Asker("tester", "test")
QUERY = ReferenceQuery(count=12)
OTHER = "network:timm:test_vit@random:3"
PURE = {"lower": LOWER, "k": 2}
STUDY = Study(
    LAYER,
    (f"pure:lower={LOWER}", "activations", "concept_vectors", "random"),
    4,
    (2, 3),
    (JUDGE, OTHER),
    QUERY,
)


class Queue(InlineQueue):
    """Counts what it is asked to compute."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.kinds: list[str] = []

    def submit(self, key: str, kind: str, args: Mapping[str, Any], title: str, **_: Any) -> Status:
        self.kinds.append(kind)
        return super().submit(key, kind, args, title)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("studies") / "pictures")


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Queue:
    return Queue(tiny_settings(tmp_path_factory.mktemp("cache"), pictures))


@pytest.fixture(scope="module")
def backend(queue: Queue) -> Backend:
    return Backend(queue._settings, queue)


@pytest.fixture(scope="module")
def study(backend: Backend) -> Evaluation:
    return evaluated(backend, STUDY)


def evaluated(backend: Backend, study: Study) -> Evaluation:
    return wait(lambda: backend.studies.evaluation("tiny", study, ASKER))


def question(channel: int = 0, method: str = "pure", **params: Any) -> SplitQuestion:
    given = params or (PURE if method == "pure" else {})
    return SplitQuestion(Neuron("tiny", LAYER, channel), method, given, QUERY)


# Sweeps.


def test_a_sweep_stores_what_a_page_asks_for(backend: Backend, queue: Queue) -> None:
    found = wait(lambda: backend.studies.sweep(question(), ASKER, (3, 6)))
    assert found.channels.tolist() == [3, 4, 5, 6]
    assert found.params["lower"] == LOWER
    queue.kinds.clear()
    for channel, k, silhouette in zip(found.channels, found.k, found.silhouette, strict=True):
        split = wait(lambda now=int(channel): backend.split(question(now), ASKER))
        assert split.k == k == 2
        assert split.scores["silhouette"] == pytest.approx(silhouette)
    assert queue.kinds == [], "every split was there"


def test_a_sweep_goes_on_where_it_was(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    wait(lambda: backend.studies.sweep(question(), ASKER, (3, 5)))
    made = []
    once = answers.neuron.split

    def split(*args: Any) -> Split:
        made.append(args[1].subject)
        return once(*args)

    monkeypatch.setattr(answers.neuron, "split", split)
    wait(lambda: backend.studies.sweep(question(), ASKER, (4, 8)))
    assert set(made) <= {f"{LAYER}:7", f"{LAYER}:8"}


def test_splits_made_beside_are_those_made_here(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bool] = []
    take = beside.Beside.take

    def counted(*args: Any) -> Any:
        found = take(*args)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(beside.Beside, "take", counted)
    made = []
    for name, fewest in (("beside", foresight.FEWEST), ("here", 99)):
        monkeypatch.setattr(foresight, "threads", lambda: 2)
        monkeypatch.setattr(foresight, "FEWEST", fewest)
        settings = tiny_settings(pictures.parent / name, pictures)
        fresh = Backend(settings, InlineQueue(settings))
        wait(lambda now=fresh: now.studies.sweep(question(), ASKER, (0, 0)))
        swept = wait(lambda now=fresh: now.studies.sweep(question(), ASKER, (0, 19)))
        alive = [int(channel) for channel in swept.channels[swept.k > 0]]
        made.append(
            [plain(wait(lambda c=c, now=fresh: now.split(question(c), ASKER))) for c in alive]
        )
        assert len(alive) > 10
        if name == "beside":
            assert len(taken) == sum(taken) >= len(alive) - 1, "each but the first was begun"
            taken.clear()
    assert made[0] == made[1]
    assert not taken


def test_dead_neurons_and_neurons_without_groups_are_counted(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = browse.references

    def references(scan: Any, images: Any, neuron: Neuron, *rest: Any) -> Any:
        if neuron.channel == 20:
            scan = replace(scan, maximum=np.zeros(scan.maximum.shape, np.float16))
        return real(scan, images, neuron, *rest)

    monkeypatch.setattr(browse, "references", references)
    found = wait(
        lambda: backend.studies.sweep(
            question(method="concept_vectors", separation=0.02, smallest=4), ASKER, (20, 22)
        )
    )
    assert found.k[0] == -1
    assert (found.k[1:] >= 0).all()
    assert np.isnan(found.silhouette[0])
    none = wait(
        lambda: backend.studies.sweep(
            question(method="concept_vectors", smallest=40), ASKER, (21, 22)
        )
    )
    assert none.k.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("channels", "sentence"), [((0, 96), "channels 0 to 95"), ((5, 3), "write 3-5")]
)
def test_ranges_that_are_none_are_refused(
    backend: Backend, channels: tuple[int, int], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        wait(lambda: backend.studies.sweep(question(), ASKER, channels))


# Comparisons.


def test_every_method_k_and_judge_has_its_row(study: Evaluation) -> None:
    rows = {(row.method, row.judge, row.own, row.k) for row in study.rows if not row.own}
    swept = [f"pure:lower={LOWER}", "activations", "random"]
    judges = (JUDGE, OTHER)
    assert rows == {(m, judge, False, k) for m in swept for judge in judges for k in (2, 3)}
    own = [row for row in study.rows if row.own]
    assert {row.method for row in own} == {"concept_vectors"}
    assert len({row.judge for row in own}) == len(own), "each judge sees its own k once"
    assert study.correlated == "neurons"
    assert not study.missing
    assert not study.notice
    assert {judge.used for judge in study.judges} == set(judges)
    assert {"relevance", "crops", "embedding", "clustering", "scoring"} <= set(study.seconds)


def test_rows_are_means_of_what_is_kept_of_each_neuron(study: Evaluation) -> None:
    assert study.intra.shape == (len(study.rows), len(study.channels)) == study.inter.shape
    for row, intra, inter, parts in zip(
        study.rows, study.intra, study.inter, study.parts, strict=True
    ):
        whole = np.isfinite(inter - intra)
        assert row.n == whole.sum()
        if row.n:
            assert row.gap == pytest.approx((inter - intra)[whole].mean(), abs=1e-6)
        assert row.own or (parts[whole] == row.k).all()


def test_a_neuron_is_judged_as_on_its_page(backend: Backend, study: Evaluation) -> None:
    at = next(i for i, row in enumerate(study.rows) if row.method.startswith("pure") and row.k == 2)
    channel = int(study.channels[0])
    page = wait(lambda: backend.alignment(question(channel), ASKER, study.rows[at].judge))
    assert study.intra[at, 0] == pytest.approx(page.intra.value, abs=1e-6)
    assert study.inter[at, 0] == pytest.approx(page.inter.value, abs=1e-6)


def test_random_labels_have_no_gap(study: Evaluation) -> None:
    for row in study.rows:
        if row.method == "random":
            assert abs(row.gap) < 5 * max(row.gap_se, row.gap_null_sd)
            assert abs(row.gap_null) < 3 * row.gap_null_sd


def test_the_same_study_again_gives_the_same_numbers(study: Evaluation, pictures: Path) -> None:
    settings = tiny_settings(pictures.parent / "again", pictures)
    again = evaluated(Backend(settings, InlineQueue(settings)), STUDY)
    assert np.array_equal(study.channels, again.channels)
    assert np.array_equal(study.intra, again.intra, equal_nan=True)
    assert np.array_equal(study.inter, again.inter, equal_nan=True)


def test_a_smaller_sample_is_part_of_a_larger_one(backend: Backend, study: Evaluation) -> None:
    small = evaluated(backend, replace(STUDY, neurons=2, methods=("random",), judges=(JUDGE,)))
    assert set(small.channels) < set(study.channels)


def test_all_living_neurons_are_used_and_it_is_said(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(scan: Any, images: Any) -> LayerTable:
        found = table(scan, images)
        return replace(found, alive=np.arange(len(found.alive)) < 3)

    table = browse.table
    monkeypatch.setattr(browse, "table", few)
    monkeypatch.setattr(answers.Room, "kept", lambda room, about, identity, what, make: make())
    found = evaluated(backend, replace(STUDY, neurons=50, methods=("random",), ks=(2,)))
    assert found.channels.tolist() == [0, 1, 2]
    assert "only 3 living neurons" in found.notice


def test_a_judge_that_cannot_be_loaded_leaves_a_hole(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Shelf.embedder

    def embedder(shelf: Shelf, spec: str) -> Any:
        if spec == "conse":
            raise Unavailable("Its weights cannot be had.")
        return whole(shelf, spec)

    monkeypatch.setattr(Shelf, "embedder", embedder)
    holed = replace(STUDY, judges=("conse", JUDGE), methods=("activations", "random"))
    found = evaluated(backend, holed)
    assert found.missing == (("conse", "Its weights cannot be had."),)
    assert {row.judge for row in found.rows} == {JUDGE}
    assert all(row.n == 4 for row in found.rows)


def test_a_judge_lost_half_way_keeps_what_it_judged(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = answers.measure
    judged: list[int] = []

    def measure(*args: Any) -> Measured:
        judged.append(1)
        return real(*args)

    def embed(lab: DeviceLab, *args: Any) -> np.ndarray:
        if len(judged) >= 2:
            raise Unavailable("The connection is gone.")
        return whole(lab, *args)

    whole = DeviceLab.embed
    monkeypatch.setattr(DeviceLab, "embed", embed)
    monkeypatch.setattr(answers, "measure", measure)
    found = evaluated(
        backend, replace(STUDY, methods=("activations",), ks=(2,), judges=(JUDGE,), seed=5)
    )
    assert found.rows[0].n == 2
    assert found.missing == ((JUDGE, "The connection is gone."),)


def test_a_method_that_cannot_work_here_leaves_a_hole(backend: Backend) -> None:
    methods = ("embedding:embedder=network:timm:test_resnet@/nowhere.pt", "random")
    found = evaluated(backend, replace(STUDY, methods=methods, ks=(2,), judges=(JUDGE,)))
    assert {row.method for row in found.rows} == {"random"}
    assert found.missing[0][0] == methods[0]
    assert "nowhere.pt" in found.missing[0][1]
    with pytest.raises(Unavailable, match="Nothing could be compared"):
        evaluated(backend, replace(STUDY, methods=methods[:1], ks=(2,), judges=(JUDGE,)))


def test_neurons_with_too_few_references_are_left_out_of_that_k(backend: Backend) -> None:
    few = replace(STUDY, methods=("activations",), ks=(2, 5), references=ReferenceQuery(count=4))
    found = evaluated(backend, few)
    assert {row.k for row in found.rows} == {2}, "no neuron has five references"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"methods": ("magic",)}, "no method 'magic'"),
        ({"methods": ("pure:k=3",)}, "leave k out"),
        ({"methods": ("pure:attribution",)}, "write pure, or pure:PARAMETER=VALUE"),
        ({"methods": ("pure:seed=x",)}, "seed is a int"),
        ({"methods": ("embedding:embedder=magic",)}, "'magic' is not an embedder"),
        ({"methods": ()}, "at least one method"),
        ({"judges": ("magic",)}, "'magic' is not an embedder"),
        ({"ks": (1,)}, "k from 2 to 8"),
        ({"ks": (9,)}, "k from 2 to 8"),
        ({"ks": ()}, "k from 2 to 8"),
        ({"neurons": 0}, "one neuron or more"),
        ({"layer": "layer9"}, "no layer 'layer9'"),
        ({"references": ReferenceQuery(count=0)}, "1 to 1000 references"),
        ({"references": ReferenceQuery(by="singular")}, "parameter start"),
    ],
)
def test_studies_that_cannot_be_made_are_refused(
    backend: Backend, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        evaluated(backend, replace(STUDY, **change))


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("pure", "pure"),
        ("pure:attribution=lrp,seed=3", "pure:attribution=lrp,seed=3"),
        ("pure:seed=0", "pure"),
        (
            "concept_vectors:centred=true, separation=1",
            "concept_vectors:separation=1.0,centred=True",
        ),
    ],
)
def test_methods_are_written_in_one_way(text: str, again: str) -> None:
    method, params = variants.parse(text)
    assert variants.text(method.name, params) == again
    assert variants.parse(again)[1].items() <= params.items()


# Directions.


def test_all_pictures_are_ranked_along_a_concept(backend: Backend) -> None:
    asked = question(3, "concept_vectors", separation=1.0)
    split = wait(lambda: backend.split(asked, ASKER))
    found = wait(lambda: backend.studies.ranking(asked, 0, 30, ASKER))
    images = wait(lambda: backend.images("tiny", ASKER))
    assert sorted(found.index) == list(range(len(images)))
    assert (np.diff(found.value) <= 0).all()
    assert found.images == 30
    assert found.mean == pytest.approx(found.value.mean())
    members = split.references.index[split.labels == 0]
    assert np.isin(members, found.index[:20]).mean() > 0.7


def test_only_directions_of_the_layer_rank_pictures(backend: Backend) -> None:
    found = wait(lambda: backend.studies.ranking(question(3, "activations", k=2), 1, 5, ASKER))
    assert len(found.index) == 5
    with pytest.raises(BadInput, match="choose concept vectors"):
        wait(lambda: backend.studies.ranking(question(3), 0, 5, ASKER))
    with pytest.raises(BadInput, match="0 to 1, not 2"):
        wait(lambda: backend.studies.ranking(question(3, "activations", k=2), 2, 5, ASKER))
    with pytest.raises(BadInput, match="1 to 1000 pictures"):
        wait(lambda: backend.studies.ranking(question(3), 0, 0, ASKER))


def test_concepts_start_from_singular_directions(backend: Backend) -> None:
    asked = question(0, "concept_vectors", start="singular", separation=1.0)
    split = wait(lambda: backend.split(asked, ASKER))
    assert split.references.query.by == "singular"
    assert split.provenance["axis"][0] > 0.9, "the strongest direction is nearly the mean"
    crops = wait(lambda: backend.crops(split.neuron, split.references.query, ASKER))
    assert crops.index.tolist() == split.references.index.tolist()
    assert crops.degenerate.all()
    shown = wait(
        lambda: backend.thumbnails("tiny", crops.index[:2].tolist(), ASKER, "heat", crops, 64)
    )
    assert len(shown) == 2
    judged = wait(lambda: backend.alignment(asked, ASKER))
    assert judged.overall > 0
    with pytest.raises(BadInput, match="no neuron"):
        wait(lambda: backend.references(split.neuron, split.references.query, ASKER))


def test_the_paper_ranks_by_mean_wherever_it_is_asked_from(backend: Backend) -> None:
    by_max, by_mean = (
        SplitQuestion(
            Neuron("tiny", LAYER, 3),
            "concept_vectors",
            {"mode": "paper", "smallest": 1},
            replace(QUERY, by=by),
        )
        for by in ("max", "mean")
    )
    split = wait(lambda: backend.split(by_max, ASKER))
    assert split.references.query.by == "mean"
    assert np.array_equal(split.strength, wait(lambda: backend.split(by_mean, ASKER)).strength)
    assert wait(lambda: backend.alignment(by_max, ASKER)).correlation.n == (split.labels >= 0).sum()


# What cannot be divided, each in one sentence.


@pytest.mark.parametrize(
    ("method", "params", "references", "sentence"),
    [
        ("activations", {"k": 5}, 4, "5 virtual neurons need as many references, and there are 4"),
        ("concept_vectors", {}, 4, "need as many, and there are 4"),
        ("concept_vectors", {"smallest": 40}, 12, "there are 12"),
        ("concept_vectors", {"separation": 0.02, "smallest": 12}, 12, "No concept of 12"),
    ],
)
def test_what_cannot_be_divided_says_why(
    backend: Backend, method: str, params: dict[str, Any], references: int, sentence: str
) -> None:
    asked = SplitQuestion(
        Neuron("tiny", LAYER, 3), method, params, ReferenceQuery(count=references)
    )
    with pytest.raises(NoCluster, match=sentence):
        wait(lambda: backend.split(asked, ASKER))


def test_more_references_than_pictures_means_all_of_them(backend: Backend) -> None:
    asked = SplitQuestion(
        Neuron("tiny", LAYER, 3), "activations", {"k": 2}, ReferenceQuery(count=900)
    )
    split = wait(lambda: backend.split(asked, ASKER))
    assert len(split.references.index) <= 30


# The command line.


@pytest.fixture
def command(
    backend: Backend, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Callable[..., dict[str, Any]]:
    """Run a command on the workspace of these tests, its answers kept among theirs."""
    surround(monkeypatch, write_config(tmp_path, pictures), backend.settings.cache_dir)
    return partial(tiny.command, capsys)


def test_evaluate_prints_the_promised_fields(
    command: Callable[..., dict[str, Any]], study: Evaluation
) -> None:
    argv = ["evaluate", LAYER, "--methods", *STUDY.methods, "--judges", *STUDY.judges]
    argv += ["--neurons", "4", "--ks", "2", "3", "--references", "12", "--per-neuron"]
    found = command(*argv)
    promised = {"method", "k", "judge", "intra", "inter", "gap", "gap_se", "correlation", "n"}
    assert all(promised <= set(row) for row in found["rows"])
    assert found["channels"] == study.channels.tolist()
    for row, known in zip(found["rows"], study.rows, strict=True):
        assert row["gap"] == (None if np.isnan(known.gap) else known.gap)
        assert row["own"] or row["k"] in (2, 3)
        assert len(row["intra"]) != 0
    assert found["differences"][0].keys() >= {"first", "second", "mean", "low", "high", "n"}
    assert found["missing"] == []


def test_sweep_prints_the_distribution_of_k(command: Callable[..., dict[str, Any]]) -> None:
    argv = ["sweep", LAYER, "--method", "concept_vectors", "--channels", "0-9"]
    found = command(*argv, "--references", "20", "--separation", "1.0")
    assert found["channels"] == list(range(10))
    assert sum(found["histogram"].values()) + found["dead"] == 10
    alive = [k for k in found["k"] if k >= 0]
    assert found["mean_k"] == pytest.approx(np.mean(alive))
    assert found["two_or_more"] == pytest.approx(np.mean([k >= 2 for k in alive]))


def test_split_ranks_all_pictures_on_request(command: Callable[..., dict[str, Any]]) -> None:
    argv = ["split", f"{LAYER}:3", "--method", "concept_vectors", "--separation", "1.0"]
    found = command(*argv, "--references", "20", "--no-scores", "--rank", "7")
    assert len(found["ranking"]) == found["k"]
    assert all(len(each["paths"]) == len(each["values"]) == 7 for each in found["ranking"])


@pytest.mark.parametrize("text", ["a", "1-", "-1", "1-2-3", "1.5", "9999999999"])
def test_channels_that_are_no_range_are_refused(
    command: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    assert main(["sweep", LAYER, f"--channels={text}", "--json"]) == 2
    assert "write A-B" in capsys.readouterr().err


def test_labels_are_the_same_when_everything_is_made_again(pictures: Path) -> None:
    asked = (question(4), question(4, "concept_vectors", separation=1.0))
    splits = []
    for name in ("one", "two"):
        settings = tiny_settings(pictures.parent / name, pictures)
        fresh = Backend(settings, InlineQueue(settings))
        for each in asked:
            wait(lambda now=fresh, each=each: now.studies.sweep(each, ASKER, (3, 5)))
        splits.append(
            [wait(lambda now=fresh, each=each: now.split(each, ASKER)).labels for each in asked]
        )
    for first, second in zip(*splits, strict=True):
        assert np.array_equal(first, second)


def test_every_method_can_be_swept(backend: Backend) -> None:
    for name in METHODS:
        found = wait(lambda now=name: backend.studies.sweep(question(method=now), ASKER, (3, 3)))
        assert found.method == name
