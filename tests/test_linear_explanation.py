"""The exact solver against slow twins: least squares, brute force, the paper's own loop."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet

from explorer.methods.elastic_net import MIX, elastic_net
from explorer.methods.linear_explanation import (
    Params,
    correlations,
    explain,
    moments,
    ordered,
    refit,
    targets,
)
from explorer.scores.simulation import pearson, range_shares, simulation


class Planted:
    """Signals that are sums of a few of M skewed concepts, and noise."""

    def __init__(self, concepts: int = 60, signals: int = 6, signs: bool = False) -> None:
        rng = np.random.default_rng(3)
        self.responses = rng.random((900, concepts)).astype(np.float32) ** 4
        self.truth = [rng.choice(concepts, 3, replace=False) for _ in range(signals)]
        self.weights = np.array([3.0, 2.0, -1.5 if signs else 1.5])
        clean = np.stack([self.responses[:, each] @ self.weights for each in self.truth], axis=1)
        noise = rng.normal(0, 0.2, clean.shape)
        self.signals = (clean + 0.7 + noise).astype(np.float32)
        self.train, self.held = self.responses[:700], self.responses[700:]
        self.moments = moments(self.train), moments(self.held)
        self.targets = (
            targets(self.train, self.moments[0], self.signals[:700]),
            targets(self.held, self.moments[1], self.signals[700:]),
        )

    def explain(self, params: Params, forced: bool = False):  # type: ignore[no-untyped-def]
        (one, two), (on_one, on_two) = self.moments, self.targets
        return explain(one, on_one, two, on_two, params, forced)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


def test_planted_concepts_are_found(planted: Planted) -> None:
    fit = planted.explain(Params())
    for signal, truth in enumerate(planted.truth):
        chosen, weight = fit.terms(signal)
        assert set(chosen) == set(truth)
        expected = dict(zip(truth.tolist(), planted.weights, strict=True))
        assert weight == pytest.approx([expected[int(each)] for each in chosen], abs=0.1)
        assert fit.bias[signal] == pytest.approx(0.7, abs=0.1)


def test_weights_are_those_of_least_squares(planted: Planted) -> None:
    fit = planted.explain(Params(length=8), forced=True)
    worst = 0.0
    for signal in range(len(planted.truth)):
        chosen, weight = fit.terms(signal)
        assert len(chosen) == 8
        design = np.c_[planted.train[:, chosen].astype(np.float64), np.ones(700)]
        exact = np.linalg.lstsq(design, planted.signals[:700, signal], rcond=None)[0]
        worst = max(worst, np.abs(exact - [*weight, fit.bias[signal]]).max())
        said = planted.held[:, chosen] @ weight
        assert fit.validation[signal] == pytest.approx(
            pearson(said, planted.signals[700:, signal]), abs=1e-6
        )
    assert worst < 1e-9


def test_the_first_step_is_that_of_brute_force(planted: Planted) -> None:
    fit = planted.explain(Params(length=1, width=60))
    alone = np.abs(correlations(planted.moments[1], planted.targets[1]))
    order = ordered(planted.moments[0], planted.targets[0], Params())
    assert {len(set(row)) for row in order.tolist()} == {60}
    assert fit.chosen[:, 0].tolist() == alone.argmax(axis=0).tolist()


def test_few_concepts_equal_the_best_subset(planted: Planted) -> None:
    fit = planted.explain(Params(length=3, width=60, tolerance=0.0))
    signal = 0
    near = ordered(planted.moments[0], planted.targets[0], Params())[signal, :12]
    best = max(
        _held_out(planted, np.array(subset), signal) for subset in combinations(near.tolist(), 3)
    )
    assert fit.validation[signal] == pytest.approx(best, abs=1e-6)


def _held_out(planted: Planted, chosen: np.ndarray, signal: int) -> float:
    design = np.c_[planted.train[:, chosen], np.ones(700)]
    weight = np.linalg.lstsq(design, planted.signals[:700, signal], rcond=None)[0][:-1]
    return pearson(planted.held[:, chosen] @ weight, planted.signals[700:, signal])


def test_never_worse_than_the_papers_loop_on_the_same_candidates(planted: Planted) -> None:
    order = ordered(planted.moments[0], planted.targets[0], Params())
    exact = planted.explain(Params()).validation
    assert exact[0] >= _published(planted, order[0], 0) - 1e-3


def _published(planted: Planted, order: np.ndarray, signal: int) -> float:
    """The greedy search with full-batch Adam (rate 0.3, 100 steps) in place of least squares."""
    selected: list[int] = []
    rejected: set[int] = set()
    best = -np.inf
    while len(selected) < 10:
        window = [int(c) for c in order if c not in rejected and int(c) not in selected][:10]
        reached = {each: _adam(planted, [*selected, each], signal) for each in window}
        first = not selected
        good = {c: r for c, r in reached.items() if first or r - best >= 0.02}
        rejected |= set(reached) - set(good)
        if not good:
            break
        top = max(good, key=lambda each: good[each])
        selected, best = [*selected, top], good[top]
    return best


def _adam(planted: Planted, chosen: list[int], signal: int) -> float:
    design = torch.from_numpy(planted.train[:, chosen])
    truth = torch.from_numpy(planted.signals[:700, signal])
    weight = torch.zeros(len(chosen), requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    steps = torch.optim.Adam([weight, bias], lr=0.3)
    for _ in range(100):
        steps.zero_grad()
        ((design @ weight + bias - truth) ** 2).mean().backward()
        steps.step()
    said = planted.held[:, chosen] @ weight.detach().numpy()
    return pearson(said, planted.signals[700:, signal])


def test_the_elastic_net_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(400, 8)) @ rng.normal(size=(8, 90)) + rng.normal(size=(400, 90))
    mixed = (mixed - mixed.mean(axis=0)) / mixed.std(axis=0)
    signals = mixed[:, :5] @ rng.normal(size=(5, 3)) + rng.normal(size=(400, 3))
    signals = (signals - signals.mean(axis=0)) / signals.std(axis=0)
    found = elastic_net(mixed.T @ mixed / 400, mixed.T @ signals / 400, 0.05)
    for signal in range(3):
        twin = ElasticNet(alpha=0.05, l1_ratio=MIX, fit_intercept=False, tol=1e-9, max_iter=100_000)
        assert found[:, signal] == pytest.approx(
            twin.fit(mixed, signals[:, signal]).coef_, abs=1e-3
        )


def test_inhibitory_concepts_are_proposed_when_asked() -> None:
    planted = Planted(signs=True)
    plain, both = planted.explain(Params()), planted.explain(Params(inhibitory=True))
    assert (both.validation >= plain.validation - 1e-9).all()
    for signal, truth in enumerate(planted.truth):
        chosen, weight = both.terms(signal)
        assert set(chosen) == set(truth)
        assert weight[list(chosen).index(truth[2])] < 0


def test_a_concept_that_repeats_another_adds_nothing() -> None:
    planted = Planted(concepts=20, signals=1)
    twice = np.concatenate([planted.responses, planted.responses], axis=1)
    train, held = moments(twice[:700]), moments(twice[700:])
    on = (
        targets(twice[:700], train, planted.signals[:700]),
        targets(twice[700:], held, planted.signals[700:]),
    )
    fit = explain(train, on[0], held, on[1], Params(tolerance=0.0))
    chosen, weight = fit.terms(0)
    assert len(set((chosen % 20).tolist())) == len(chosen), "no concept with its copy"
    assert np.isfinite(weight).all()


def test_given_terms_are_refitted_exactly(planted: Planted) -> None:
    chosen = np.array([4, 9, 2])
    on = targets(planted.train, planted.moments[0], planted.signals[:700, :1])
    weight, bias = refit(planted.moments[0], on, chosen)
    design = np.c_[planted.train[:, chosen].astype(np.float64), np.ones(700)]
    exact = np.linalg.lstsq(design, planted.signals[:700, 0], rcond=None)[0]
    assert [*weight, bias] == pytest.approx(exact.tolist(), abs=1e-9)


def test_simulation_has_an_interval_and_knows_constants() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    found = simulation(truth + rng.normal(size=200), truth)
    assert found.low < found.value < found.high
    assert found.n == 200
    assert found.high - found.low == pytest.approx(0.14, abs=0.03)
    assert pearson(np.full(200, 0.1), truth) == 0
    assert np.isnan(pearson(truth, np.ones(200)))


def test_shares_of_effect_add_up() -> None:
    signal = np.arange(100.0)
    effect = np.ones(100)
    assert range_shares(signal, effect, np.array([0.1, 0.5, 1.0])) == pytest.approx([0.1, 0.5, 1])
    assert np.isnan(range_shares(signal, effect, np.array([0.001]))).all(), "less than one picture"
    assert np.isnan(range_shares(signal, np.zeros(100), np.array([0.5]))).all()
