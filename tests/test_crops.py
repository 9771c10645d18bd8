"""From heat maps to boxes and small maps: PURE's crop rule and what it leaves open."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torchvision.transforms.functional import gaussian_blur

from explorer.compute import attribution, locating
from explorer.compute.crops import SIDE, boxes_and_heat
from explorer.networks.cores import side_by_side
from explorer.networks.graph import Network
from explorer.networks.zoo import load
from explorer.records import Crops, Neuron, ReferenceQuery, References

PATIENCE = 20.0
VIEW = 224


def spot(left: int, top: int, right: int, bottom: int, size: int = VIEW) -> np.ndarray:
    """A map that is 1 in a box and 0 elsewhere."""
    heat = np.zeros((size, size), np.float32)
    heat[top:bottom, left:right] = 1.0
    return heat


def textbook(heat: np.ndarray) -> tuple[int, int, int, int]:
    """The paper's rule, one picture at a time and in words."""
    blurred = gaussian_blur(torch.from_numpy(heat)[None], 5).abs()[0].numpy()
    rows, columns = np.nonzero(blurred / blurred.max() > 0.02)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    missing = (bottom - top) - (right - left)
    if missing > 0:
        left -= missing // 2
        right += missing - missing // 2
    else:
        top -= -missing // 2
        bottom += -missing - (-missing // 2)
    right, left = right + max(0, -left), max(0, left)
    bottom, top = bottom + max(0, -top), max(0, top)
    return int(left), int(top), min(int(right), heat.shape[1]), min(int(bottom), heat.shape[0])


SPOTS = {
    "middle": (100, 90, 130, 110),
    "tall": (100, 40, 110, 180),
    "left": (0, 40, 20, 180),
    "top": (60, 0, 160, 9),
    "right": (210, 100, 224, 200),
    "corner": (200, 150, 224, 224),
    "all": (0, 0, 224, 224),
}


@pytest.mark.parametrize("place", SPOTS)
def test_boxes_follow_the_rule(place: str) -> None:
    heat = spot(*SPOTS[place])
    box, _, degenerate = boxes_and_heat(heat[None])
    assert tuple(box[0]) == textbook(heat)
    assert box.dtype == np.int32
    assert not degenerate[0]


def test_the_shorter_side_grows_evenly_and_only_the_far_edges_cut() -> None:
    spots = [SPOTS[place] for place in ("tall", "left", "right")]
    box, _, _ = boxes_and_heat(np.stack([spot(*each) for each in spots]))
    reach = 2  # how far the blur carries more than 2 %
    tall, left, right = (tuple(int(edge) for edge in each) for each in box)
    assert tall == (33, 38, 177, 182)
    assert left == (0, 38, 144, 182)
    assert right == (164, 98, 224, 202)
    assert right[2] - right[0] < right[3] - right[1] == 100 + 2 * reach


@given(
    st.lists(
        st.tuples(st.integers(0, 39), st.integers(0, 39), st.floats(-1, 1, width=32)),
        min_size=1,
        max_size=6,
    )
)
@example([(0, 0, 5.605193857299268e-44)])
def test_boxes_lie_inside_and_hold_what_is_strong(points: list[tuple[int, int, float]]) -> None:
    heat = np.zeros((40, 40), np.float32)
    for row, column, value in points:
        heat[row, column] = value
    (box,), (small,), (degenerate,) = boxes_and_heat(heat[None])
    left, top, right, bottom = (int(edge) for edge in box)
    assert 0 <= left < right <= 40
    assert 0 <= top < bottom <= 40
    some = np.abs(heat).max() >= np.finfo(np.float32).tiny
    assert bool(degenerate) != some
    if some:
        blurred = np.abs(gaussian_blur(torch.from_numpy(heat)[None], 5)[0].numpy())
        row, column = np.unravel_index(blurred.argmax(), blurred.shape)
        assert top <= row < bottom
        assert left <= column < right
        assert small.max() == 255


def test_maps_that_say_nothing_give_the_whole_picture() -> None:
    broken = spot(10, 10, 30, 30)
    broken[100, 100] = np.nan
    endless = spot(10, 10, 30, 30)
    endless[0, 0] = np.inf
    heat = np.stack([np.zeros((VIEW, VIEW), np.float32), broken, endless, spot(10, 10, 30, 30)])
    box, small, degenerate = boxes_and_heat(heat)
    assert degenerate.tolist() == [True, True, True, False]
    assert box[:3].tolist() == [[0, 0, VIEW, VIEW]] * 3
    assert small[:3].max() == 0
    assert small[3].max() == 255


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20, -1.0])
def test_scale_and_sign_do_not_matter(scale: float) -> None:
    heat = spot(50, 60, 90, 80) - 0.3 * spot(120, 60, 140, 70)
    for one, other in zip(
        boxes_and_heat(heat[None] * scale), boxes_and_heat(heat[None]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_the_drawn_map_is_the_blur_of_the_figures_reduced() -> None:
    random = np.random.default_rng(0)
    heat = np.zeros((2, VIEW, VIEW), np.float32)
    heat[:, 60:150, 80:190] = random.normal(1, 1, (2, 90, 110))
    _, small, _ = boxes_and_heat(heat)
    assert small.shape == (2, SIDE, SIDE)
    assert small.dtype == np.uint8
    blurred = gaussian_blur(torch.from_numpy(heat), 51).abs()
    truth = torch.nn.functional.adaptive_avg_pool2d(blurred, SIDE)
    truth = truth / truth.amax((1, 2), keepdim=True) * 255
    assert np.abs(small.astype(float) - truth.numpy()).max() < 6


def test_no_pictures_and_other_sizes() -> None:
    box, small, degenerate = boxes_and_heat(np.zeros((0, 32, 32), np.float32))
    assert box.shape == (0, 4)
    assert small.shape == (0, SIDE, SIDE)
    assert degenerate.shape == (0,)
    box, small, _ = boxes_and_heat(spot(4, 4, 9, 9, 30)[None])
    assert tuple(box[0]) == (2, 2, 11, 11)
    assert small.shape == (1, SIDE, SIDE)


def test_crops_do_not_depend_on_how_many_fit_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network.build(load("timm:test_resnet", "random:0"))
    layer = network.info.layers[-2]
    piece = network.slice(None, layer.name)
    count, side = locating.MORE + 4, network.info.preprocess.crop
    x = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    index = np.arange(count)
    places = np.zeros(count, np.int64)
    neuron = Neuron("tiny", layer.name, 3)
    references = References(neuron, ReferenceQuery(), index, np.ones(count, np.float32), places)
    found: list[Crops] = []
    begun: list[Crops] = []
    for room, size in ((2**40, locating.MOST), (1, 1)):
        monkeypatch.setattr(locating, "ROOM", room)
        assert locating._size(piece) == size
        about = piece, lambda at: x[torch.from_numpy(at)], references
        given = np.zeros(0, np.int64), begun.append, lambda *_: None
        found.append(locating.crops(*about, "lrp", *given))
    assert [len(some.box) for some in begun] == [locating.FIRST, locating.MORE] * 2
    assert np.array_equal(found[0].index, index)
    assert np.abs(found[0].box - found[1].box).max() <= 1
    assert np.abs(found[0].heat.astype(int) - found[1].heat.astype(int)).max() <= 1
    assert found[0].heat.any()


@pytest.mark.parametrize(
    ("wanted", "marks"),
    [
        (range(0, 60, 3), [20]),
        (range(0, 60, 2), [30]),
        (range(10, 55), [16, 45]),
        (range(60), [16]),
    ],
)
def test_what_is_wanted_comes_first_and_changes_nothing(wanted: range, marks: list[int]) -> None:
    network = Network.build(load("timm:test_resnet", "random:0"))
    layer = network.info.layers[-2]
    count, side = 60, network.info.preprocess.crop
    x = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    index, places = np.arange(count) * 2 + 1, np.zeros(count, np.int64)
    neuron = Neuron("tiny", layer.name, 3)
    references = References(neuron, ReferenceQuery(), index, np.ones(count, np.float32), places)
    piece = network.slice(None, layer.name)
    about = piece, lambda at: x[torch.from_numpy(at // 2)], references, "lrp"
    begun: list[Crops] = []
    orders = np.arange(0), np.array(wanted)
    plain, found = (
        locating.crops(*about, order, begun.append, lambda *_: None) for order in orders
    )
    assert [len(some.box) for some in begun[2:]] == marks
    for some in begun[2:]:
        assert len(np.intersect1d(some.index, index[wanted])) == min(len(wanted), len(some.index))
        at = np.searchsorted(index, some.index)
        assert np.array_equal(some.index, index[at])
        assert np.array_equal(some.heat, found.heat[at])
        assert np.array_equal(some.box, found.box[at])
    assert np.array_equal(found.index, index)
    assert np.abs(found.box - plain.box).max() <= 1
    assert np.abs(found.heat.astype(int) - plain.heat.astype(int)).max() <= 1


def test_heat_maps_that_nobody_waits_for_end_on_their_way() -> None:
    network = Network.build(load("timm:test_resnet", "random:0"))
    piece = network.slice(None, network.info.layers[-2].name)
    side, ended = network.info.preprocess.crop, []
    x, one = torch.randn(1, 3, side, side), torch.zeros(1, dtype=torch.long)

    def again_and_again(_: int) -> None:
        end = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < end:
                attribution.heat(piece, x, one, one)
        except CancelledError:
            ended.append(True)

    def lose_interest() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        next(side_by_side(again_and_again, range(1), 2, lose_interest))
    assert ended == [True]


@pytest.mark.skipif(torch.get_num_threads() < 2, reason="One core makes one batch after the other.")
def test_who_makes_crops_is_heard_of_while_a_batch_is_under_way() -> None:
    network = Network.build(load("timm:test_resnet", "random:0"))
    layer = network.info.layers[-2]
    side, told = network.info.preprocess.crop, threading.Event()
    neuron, index = Neuron("tiny", layer.name, 3), np.arange(2)
    about = neuron, ReferenceQuery(), index, np.ones(2, np.float32), np.zeros(2, np.int64)

    def inputs(at: np.ndarray) -> torch.Tensor:
        assert told.wait(PATIENCE)
        return torch.zeros(len(at), 3, side, side)

    given = References(*about), "lrp", index, lambda _: None, lambda *_: told.set()
    piece = network.slice(None, layer.name)
    assert len(locating.crops(piece, inputs, *given).box) == 2
