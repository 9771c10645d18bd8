"""The arithmetic of dividing a row of weights, against the paper's own rule."""

from __future__ import annotations

import numpy as np
import pytest

from explorer.networks import dividing


def drawn(concepts: int = 2, inputs: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    weight = random.normal(size=inputs).astype(np.float32)
    return weight, random.exponential(size=(concepts, inputs)).astype(np.float32)


@pytest.mark.parametrize("rho", [0.05, 0.5, 0.85, 1.0])
def test_published_rule_is_the_papers_for_two_concepts(rho: float) -> None:
    weight, means = drawn()
    first, second = weight.astype(np.float64) * means
    one = {i for i in range(64) if rho * first[i] > second[i]}
    two = {i for i in range(64) if i not in one and rho * second[i] > first[i]}
    owner = dividing.divide(weight, means, rho, "published")
    assert set(np.flatnonzero(owner == 0)) == one
    assert set(np.flatnonzero(owner == 1)) == two
    made = dividing.rows(weight, owner, 2)
    assert np.array_equal(made[0], np.where([i in two for i in range(64)], 0, weight))
    assert np.array_equal(made[1], np.where([i in one for i in range(64)], 0, weight))
    assert np.array_equal(made[2], np.where([i in one | two for i in range(64)], 0, weight))


def test_published_rule_depends_on_the_order_for_negative_weights_and_symmetric_does_not() -> None:
    weight, means = drawn()
    swapped = np.array([1, 0, dividing.SHARED])
    there = dividing.divide(weight, means, 0.5, "published")
    back = swapped[dividing.divide(weight, means[::-1], 0.5, "published")]
    assert np.array_equal(there[weight > 0], back[weight > 0])
    assert not np.array_equal(there[weight < 0], back[weight < 0])
    assert (there[weight < 0] != dividing.SHARED).all(), "never shared below rho = 1"
    for rule in ("symmetric", "balanced"):
        there = dividing.divide(weight, means, 0.5, rule)
        back = swapped[dividing.divide(weight, means[::-1], 0.5, rule)]
        assert np.array_equal(there, back)


@pytest.mark.parametrize("concepts", [2, 3])
def test_rules_agree_where_nothing_is_negative(concepts: int) -> None:
    weight, means = drawn(concepts)
    first, *others = (dividing.divide(abs(weight), means, 0.45, rule) for rule in dividing.MASKS)
    assert all(np.array_equal(first, other) for other in others)
    assert len(set(first.tolist())) == concepts + 1


def test_balanced_leaves_the_stronger_inhibition_to_the_other_concept() -> None:
    owner = dividing.divide(
        np.array([-1.0, -1, -1]), np.array([[1.0, 3, 2], [3, 1, 2]]), 0.5, "balanced"
    )
    assert owner.tolist() == [0, 1, dividing.SHARED]


@pytest.mark.parametrize("rule", dividing.MASKS)
@pytest.mark.parametrize("concepts", [2, 3, 4, 8])
def test_merged_rows_are_the_row_bit_for_bit(rule: str, concepts: int) -> None:
    weight, means = drawn(concepts)
    owner = dividing.divide(weight, means, 0.7, rule)
    made = dividing.rows(weight, owner, concepts).astype(np.float64)
    assert np.array_equal(dividing.merge(concepts) @ made, weight)
    for concept in range(concepts):
        assert (made[concept][owner == concept] == weight[owner == concept]).all()
        foreign = (owner != concept) & (owner != dividing.SHARED)
        assert not made[concept][foreign].any()


def test_two_rows_merge_exactly_in_float32_too() -> None:
    weight, means = drawn()
    made = dividing.rows(weight, dividing.divide(weight, means, 0.5, "symmetric"), 2)
    assert np.array_equal(made[0] + made[1] - made[2], weight)


def test_inputs_that_nothing_uses_are_shared() -> None:
    owner = dividing.divide(np.ones(4), np.zeros((2, 4)), 1.0, "symmetric")
    assert (owner == dividing.SHARED).all()
    assert dividing.empty(owner, 2) == [0, 1]


def test_criterion_is_highest_for_a_clean_division() -> None:
    concept = np.array([0, 0, 1, 1])
    clean = np.array([[3, 0], [2, 0], [0, 4], [0, 1]], np.float32)
    mixed = np.array([[3, 2], [2, 2], [3, 4], [1, 1]], np.float32)
    for rule in dividing.MASKS:
        assert dividing.criterion(clean, concept, rule) > dividing.criterion(mixed, concept, rule)
    assert dividing.criterion(clean, concept, "symmetric") == 1
    published = 3 / (2 + 1e-5) / 2 + 2 / (2 + 1e-5) / 2 + 4 / (3 + 1e-5) / 2 + 1 / (1 + 1e-5) / 2
    assert dividing.criterion(mixed, concept, "published") == pytest.approx(published)


def test_area_counts_ties_half() -> None:
    assert dividing.auc(np.array([2.0, 1.0]), np.array([1.0, 0.0])) == 0.875
    assert np.isnan(dividing.auc(np.array([]), np.array([1.0])))


def fires(concepts: int = 2, inputs: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A row that is a sum of random rows over the same inputs, f32[n,I], and the moments f64[n,I,I]
    of places where one of them fires and the others do not."""
    random = np.random.default_rng(seed)
    sources = random.normal(size=(concepts, inputs)).astype(np.float32)
    places = random.normal(size=(20_000, inputs))
    made = places @ (sources / np.linalg.norm(sources, axis=1, keepdims=True)).T
    alone = [
        places[(made[:, k] > 1) & (abs(np.delete(made, k, 1)) < 0.3).all(1)]
        for k in range(concepts)
    ]
    return sources, np.stack([each.T @ each / len(each) for each in alone])


@pytest.mark.parametrize("concepts", [2, 3])
def test_fitted_parts_follow_the_sources_where_masks_cannot(concepts: int) -> None:
    sources, moments = fires(concepts)
    whole = sources.sum(0)
    parts = dividing.fitted(whole, moments, 0.9)
    assert np.allclose(parts.sum(0), whole, atol=1e-5)
    places = np.random.default_rng(9).normal(size=(2000, 40))

    def follows(rows: np.ndarray) -> float:
        pairs = zip(rows, sources, strict=True)
        return float(np.mean([np.corrcoef(places @ row, places @ s)[0, 1] for row, s in pairs]))

    undivided = follows(np.stack([whole] * concepts))
    assert follows(parts) > undivided + 0.08
    even = np.stack([whole / concepts] * concepts)
    assert dividing.misplaced(even, whole, moments) == pytest.approx((concepts - 1) / concepts**2)
    assert dividing.misplaced(parts, whole, moments) < 0.6 * (concepts - 1) / concepts**2


def test_fitted_is_the_least_squares_solution_and_little_rho_divides_evenly() -> None:
    sources, moments = fires(inputs=6)
    whole = sources.sum(0)
    wanted = np.linalg.solve(moments.sum(0), moments[0] @ whole)
    assert np.allclose(dividing.fitted(whole, moments, 1.0)[0], wanted, atol=1e-3)
    assert np.allclose(dividing.fitted(whole, moments, 1e-6), whole / 2, atol=1e-4)


def test_crossed_rho_is_small_where_halves_disagree() -> None:
    sources, moments = fires()
    whole, rhos = sources.sum(0), np.array([0.05, 1.0])
    agree = dividing.crossed(whole, moments, moments, rhos)
    differ = dividing.crossed(whole, moments, moments[::-1], rhos)
    assert agree.argmax() == 1
    assert differ.argmax() == 0


@pytest.mark.parametrize("concepts", range(2, 9))
def test_fitted_parts_merge_bit_for_bit_and_again_when_divided_again(concepts: int) -> None:
    random = np.random.default_rng(concepts)
    weight = random.normal(size=300) * 10.0 ** random.integers(-6, 2, 300)
    weight = np.where(np.arange(300) < 5, 0, weight).astype(np.float32)
    steep = random.normal(size=(concepts, 300)) * 10.0 ** random.integers(-8, 3, 300)
    factors = dividing.merge(concepts).astype(np.float64)
    for row in (weight, dividing.exact(steep, weight)[0]):
        parts = dividing.exact(steep, row)
        made = dividing.completed(row, parts)
        assert np.array_equal(made.astype(np.float32), made), "the residual is a float32 too"
        assert np.array_equal((factors @ made).astype(np.float32), row)


def test_holders_have_two_thirds() -> None:
    parts = np.array([[3.0, 1, 0, -9], [1, 1, 0, 1]])
    assert dividing.holders(parts).tolist() == [0, dividing.SHARED, dividing.SHARED, 0]
