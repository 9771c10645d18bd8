"""References, histogram and table read off a scan."""

from __future__ import annotations

import numpy as np
import pytest

from explorer import browse
from explorer.records import (
    BadInput,
    DeadNeuron,
    ImageSet,
    Neuron,
    ReferenceQuery,
    Scan,
)


def image_set(count: int, sources: list[int] | None = None) -> ImageSet:
    labels = np.arange(count, dtype=np.int32) % 3
    return ImageSet(
        name="test",
        root="",
        digest="d",
        paths=tuple(f"{i:03}.png" for i in range(count)),
        labels=labels,
        label_names=("a", "b", "c"),
        sources=np.array(sources if sources is not None else range(count), np.int32),
        credits="",
    )


def scan_of(maximum: np.ndarray, valid: np.ndarray | None = None) -> Scan:
    maximum = np.asarray(maximum, np.float16)
    channels, images = maximum.shape
    return Scan(
        layer="layer",
        maximum=maximum,
        mean=maximum / 2,
        position=np.tile(np.arange(images, dtype=np.uint16), (channels, 1)),
        valid=np.ones(images, bool) if valid is None else valid,
        skipped=(),
    )


NEURON = Neuron("w", "layer", 0)


def test_top_references_are_the_highest_with_ties_by_image_id() -> None:
    scan = scan_of(np.array([[1, 5, 0, 5, 3, -2]]))
    found = browse.references(scan, image_set(6), NEURON, ReferenceQuery(count=3))
    assert found.index.tolist() == [1, 3, 4]
    assert found.value.tolist() == [5, 5, 3]
    assert found.position.tolist() == [1, 3, 4]


def test_at_most_one_reference_per_source_photograph() -> None:
    scan = scan_of(np.array([[9, 8, 7, 6, 5, 4]]))
    images = image_set(6, [0, 0, 0, 1, 1, 2])
    found = browse.references(scan, images, NEURON, ReferenceQuery(count=3))
    assert found.index.tolist() == [0, 3, 5]


@pytest.mark.parametrize("count", [1, 7, 40, 200])
def test_top_equals_a_full_sort(count: int) -> None:
    generator = np.random.default_rng(count)
    row = generator.normal(size=300).round(1)
    sources = generator.integers(0, 120, size=300).tolist()
    expected: list[int] = []
    seen: set[int] = set()
    for image in sorted(range(300), key=lambda i: (-np.float16(row[i]), i)):
        if row[image] > 0 and sources[image] not in seen and len(expected) < count:
            expected.append(image)
            seen.add(sources[image])
    found = browse.references(
        scan_of(row[None]), image_set(300, sources), NEURON, ReferenceQuery(count=count)
    )
    assert found.index.tolist() == expected


def test_quantiles_span_the_positive_range() -> None:
    row = np.arange(-10, 91, dtype=np.float32)[None]
    found = browse.references(
        scan_of(row), image_set(101), NEURON, ReferenceQuery(range="quantiles", count=10)
    )
    assert found.value[0] == 90
    assert found.value[-1] == 1
    steps = -np.diff(found.value)
    assert steps.max() - steps.min() <= 1


def test_random_references_depend_on_the_seed_alone() -> None:
    scan = scan_of(np.random.default_rng(0).random((1, 50)))
    images = image_set(50)
    ask = ReferenceQuery(range="random", count=10, seed=1)
    first = browse.references(scan, images, NEURON, ask)
    assert first.index.tolist() == browse.references(scan, images, NEURON, ask).index.tolist()
    other = ReferenceQuery(range="random", count=10, seed=2)
    assert first.index.tolist() != browse.references(scan, images, NEURON, other).index.tolist()


def test_unreadable_pictures_are_never_references() -> None:
    valid = np.array([False, True, True])
    scan = scan_of(np.array([[9, 1, 2]]), valid)
    found = browse.references(scan, image_set(3), NEURON, ReferenceQuery())
    assert found.index.tolist() == [2, 1]


def test_a_dead_neuron_is_said_to_be_dead() -> None:
    with pytest.raises(DeadNeuron, match="fires on none of the 4 pictures"):
        browse.references(scan_of(np.zeros((1, 4))), image_set(4), NEURON, ReferenceQuery())


@pytest.mark.parametrize(
    "query",
    [
        ReferenceQuery(by="median"),
        ReferenceQuery(range="best"),
        ReferenceQuery(count=0),
        ReferenceQuery(count=10**6),
    ],
)
def test_impossible_queries_are_refused(query: ReferenceQuery) -> None:
    with pytest.raises(BadInput):
        browse.references(scan_of(np.ones((1, 4))), image_set(4), NEURON, query)


def test_histogram_counts_every_picture_once() -> None:
    scan = scan_of(np.array([[0, 0, 1, 2, 4, 9]]), np.array([True] * 5 + [False]))
    found = browse.histogram(scan, 0, 4)
    assert found.zero == 2
    assert found.counts.tolist() == [0, 1, 1, 1]
    assert found.edges[-1] == 4


def test_table_describes_each_channel() -> None:
    scan = scan_of(np.array([[3, 0, 0, 2], [0, 0, 0, 0]]))
    found = browse.table(scan, image_set(4), top=2)
    assert found.alive.tolist() == [True, False]
    assert found.maximum.tolist() == [3, 0]
    assert found.density.tolist() == [0.5, 0]
    assert found.top.tolist() == [[0, 3], [-1, -1]]
    assert found.label.tolist() == [0, -1]
    assert found.purity.tolist() == [1, 0]
