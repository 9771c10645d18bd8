"""Convolutions by machine code of our own are plain ones."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explorer.networks import depthwise, laid_out, pointwise, quick, windowed, winograd
from explorer.networks.depthwise import Depthwise
from explorer.networks.laid_out import form_of
from explorer.networks.machine_code import PROCESSORS
from explorer.networks.modules import Border
from explorer.networks.pointwise import Pointwise
from explorer.networks.windowed import Windowed
from explorer.networks.winograd import Tiled

AROUND: tuple[int, Border] = (1, ((1, 1), (1, 1)))
WAYS = [(1, (Pointwise, 1)), (3, (Tiled, 4)), (3, (Windowed, AROUND))]
"""The size of a kernel, and a way with what it is told."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conv(*sizes: Any, **how: Any) -> nn.Conv2d:
    return nn.Conv2d(*sizes, **how).requires_grad_(False)


@pytest.fixture(params=PROCESSORS)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each kind of processor that there is code for: as every one has all vectors, if in parts, the
    code runs on any of them."""
    for module in (winograd, pointwise, windowed, depthwise):
        monkeypatch.setattr(module, "registers", lambda: PROCESSORS[request.param])
    return PROCESSORS[request.param]


def near(found: Tensor, truth: Tensor, digits: float) -> None:
    assert found.shape == truth.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    error = (found.double() - truth).abs().max()
    assert float(error) <= digits * float(truth.abs().max())


@pytest.mark.parametrize(("side", "digits"), [(4, 1e-5), (5, 4e-5), (6, 4e-5), (7, 5e-4)])
@pytest.mark.parametrize("size", [(7, 7), (14, 10), (5, 13), (4, 3), (1, 1)])
@pytest.mark.parametrize(("inner", "outer"), [(32, 48), (64, 64), (48, 112)])
def test_tiles_are_a_convolution(
    processor: Any, side: int, digits: float, size: tuple[int, int], inner: int, outer: int
) -> None:
    weight, bias = normal(outer, inner, 3, 3), normal(outer, seed=1)
    maps, added = normal(3, inner, *size, seed=2), normal(3, outer, *size, seed=3)
    truth = F.conv2d(maps.double(), weight.double(), padding=1)
    tiled = Tiled(weight, side)
    near(tiled(maps), truth, digits)
    truth += bias[:, None, None]
    near(tiled(maps, bias, least=0.5), truth.clamp(min=0.5), digits)
    most = 0.7 * float(truth.max())
    near(tiled(maps, bias, least=0.0, most=most), truth.clamp(0, most), digits)
    truth += added
    near(tiled(maps, bias, added), truth, digits)
    over = added.contiguous(memory_format=torch.channels_last)
    found = tiled(maps, bias, over, 0.0, over=True)
    near(found, truth.clamp(min=0), digits)
    assert found.data_ptr() == over.data_ptr()


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("size", [(6, 4), (7, 7), (3, 2), (13, 5)])
@pytest.mark.parametrize(("inner", "outer"), [(3, 64), (100, 128)])
def test_points_are_a_convolution(
    processor: Any, step: int, size: tuple[int, int], inner: int, outer: int
) -> None:
    weight, bias = normal(outer, inner, 1, 1), normal(outer, seed=1)
    maps = normal(7, inner, *size, seed=2)
    truth = F.conv2d(maps.double(), weight.double(), bias.double(), step)
    added = normal(*truth.shape, seed=3)
    points = Pointwise(weight, step)
    near(points(maps, bias), truth, 2e-6)
    near(points(maps, bias, least=0.5), truth.clamp(min=0.5), 2e-6)
    most = 0.7 * float(truth.max())
    near(points(maps, bias, least=0.0, most=most), truth.clamp(0, most), 2e-6)
    truth += added
    near(points(maps, bias, added), truth, 2e-6)
    over = added.contiguous(memory_format=torch.channels_last)
    kept = added.clone()
    found = points(maps, bias, over, 0.0, over=True)
    near(found, truth.clamp(min=0), 2e-6)
    whole = math.prod(truth.shape) // outer % processor.rows == 0
    assert (found.data_ptr() == over.data_ptr()) == whole, "rows that are made twice"
    assert torch.equal(points(maps, bias, kept, 0.0), found)


@pytest.mark.parametrize("border", [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 2), (3, 1))])
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("size", [(6, 4), (7, 9), (13, 5)])
@pytest.mark.parametrize(("inner", "taps"), [(3, (3, 3)), (40, (4, 2)), (20, (5, 1))])
def test_windows_are_a_convolution(
    processor: Any, inner: int, taps: Any, size: tuple[int, int], step: int, border: Border
) -> None:
    weight, bias = normal(64, inner, *taps), normal(64, seed=1)
    maps = closed(normal(7, inner, *size, seed=2), 0.3)
    (above, under), (left, right) = border
    around = F.pad(maps.double(), (left, right, above, under))
    truth = F.conv2d(around, weight.double(), bias.double(), step)
    added = normal(*truth.shape, seed=3)
    windows = Windowed(weight, (step, border))
    near(windows(maps, bias), truth, 2e-6)
    most = 0.7 * float(truth.max())
    near(windows(maps, bias, least=0.0, most=most), truth.clamp(0, most), 2e-6)
    near(windows(maps, bias, added), truth + added, 2e-6)
    by, below = normal(*truth.shape, seed=4), normal(*truth.shape, seed=5).abs() + 0.5
    plain = truth - bias.double()[:, None, None]
    near(windows.scaled(maps, by, below), plain * by / below, 2e-5)
    whole = math.prod(truth.shape) // 64 % processor.rows == 0
    over, kept = added.contiguous(memory_format=torch.channels_last), added.clone()
    found = windows(maps, bias, over, 0.0, over=True)
    assert (found.data_ptr() == over.data_ptr()) == whole, "rows that are made twice"
    assert torch.equal(windows(maps, bias, kept, 0.0), found)


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("size", [(12, 9), (13, 10), (14, 11)])
@pytest.mark.parametrize(("taps", "padding"), [((3, 3), (1, 1)), ((5, 4), (0, 2)), ((7, 3), 3)])
def test_windows_transposed_are_a_transposed_convolution(
    processor: Any, taps: Any, padding: Any, size: tuple[int, int], step: int
) -> None:
    module = conv(128, 40, taps, padding=padding, stride=step)
    made = module(torch.zeros(3, 128, *size))
    maps = closed(normal(*made.shape, seed=2), 0.3)
    leaf = torch.zeros(3, 128, *size, dtype=torch.float64, requires_grad=True)
    form = {"padding": padding, "stride": step}
    there = F.conv2d(leaf, module.weight.double(), **form)
    (truth,) = torch.autograd.grad(there, leaf, maps.double())
    assert windowed.suits_transposed(module, module.weight, maps, size)
    back = windowed.Transposed(module.weight, form_of(module), size)
    near(back(maps), truth, 2e-6)
    bias, added = normal(128, seed=3), normal(*truth.shape, seed=4)
    truth += bias[:, None, None] + added
    near(back(maps, bias, added, 0.0), truth.clamp(min=0), 2e-6)


@pytest.mark.parametrize(
    "module",
    [
        conv(128, 64, 2, stride=3),
        conv(128, 64, 1),
        conv(64, 64, 3, stride=2),
        conv(128, 16, 3, stride=2),
        conv(128, 64, 3, stride=(2, 1)),
        conv(128, 128, 3, groups=2),
        conv(128, 64, 3, stride=2).double(),
    ],
)
def test_what_is_not_transposed_by_windows(module: nn.Conv2d) -> None:
    maps = normal(2, module.out_channels, 9, 9).to(module.weight.dtype)
    assert not windowed.suits_transposed(module, module.weight, maps, (19, 19))


def test_of_few_places_some_parts_would_be_too_small() -> None:
    module = conv(128, 64, 3, stride=2)
    maps = normal(1, 64, 3, 3)
    back = windowed.Transposed(module.weight, form_of(module), (7, 7))
    assert windowed.suits_transposed(module, module.weight, maps, (7, 7))
    near(back(maps), F.conv_transpose2d(maps.double(), module.weight.double(), stride=2), 2e-6)
    maps = normal(1, 64, 2, 2)
    back = windowed.Transposed(module.weight, form_of(module), (5, 5))
    assert not windowed.suits_transposed(module, module.weight, maps, (5, 5))
    with pytest.raises(ValueError, match="too few"):
        back(maps)


@pytest.mark.parametrize("outer", [20, 24, 40])
def test_channels_that_are_left_over_are_made_twice(processor: Any, outer: int) -> None:
    maps = normal(3, 20, 7, 6, seed=2)
    module = nn.Conv2d(20, outer, 1).requires_grad_(False)
    fits = processor.copies and outer != 20
    assert pointwise.suits(module, module.weight, maps) == fits
    if not fits:
        return
    added = normal(3, outer, 7, 6, seed=3).contiguous(memory_format=torch.channels_last)
    kept = added.clone()
    truth = F.conv2d(maps.double(), module.weight.double(), module.bias.double()) + added
    points = Pointwise(module.weight)
    near(points(maps, module.bias, added, over=True), truth, 2e-6)
    assert torch.equal(added, kept), "it is not written over, as some is read twice"


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("size", "way"), [*WAYS, (1, (Pointwise, 2)), (3, (Tiled, 6))])
def test_what_is_made_is_scaled(
    processor: Any, size: int, way: Any, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:  # for any cache
        monkeypatch.setattr(laid_out, "STREAM", 0)
    kind, form = way
    weight, maps = normal(64, 48, size, size), normal(3, 48, 13, 9, seed=2)
    step = form if kind is Pointwise else 1
    truth = F.conv2d(maps.double(), weight.double(), None, step, padding=size // 2)
    by, below = normal(*truth.shape, seed=3), normal(*truth.shape, seed=4).abs() + 0.5
    near(kind(weight, form).scaled(maps, by, below), truth * by / below, 4e-5)
    near(kind(weight, form)(maps), truth, 4e-5)
    with pytest.raises(ValueError, match="fit"):
        kind(weight, form).scaled(maps, by[1:], below)


def closed(maps: Tensor, share: float) -> Tensor:
    """Maps of which this share of the channels is closed at 24 places in a row."""
    count, channels, high, wide = maps.shape
    places = count * high * wide
    chance = torch.rand(places // 24 + 1, channels, generator=torch.Generator().manual_seed(9))
    shut = (chance < share).repeat_interleave(24, 0)[:places]
    return maps.masked_fill(shut.view(count, high, wide, channels).permute(0, 3, 1, 2), -0.0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("inner", [48, 336])
@pytest.mark.parametrize(("size", "way"), [*WAYS, (1, (Pointwise, 2))])
def test_leaving_zeros_out_changes_no_bit(
    processor: Any, size: int, way: Any, inner: int, share: float
) -> None:
    kind, form = way
    weight, bias = normal(128, inner, size, size), normal(128, seed=1)
    maps = closed(normal(3, inner, 13, 9, seed=2), share)
    few, all_of_them = kind(weight, form), kind(weight, form)
    all_of_them.whole = True
    found = few(maps, bias)
    assert not few.whole
    assert torch.equal(found, all_of_them(maps, bias))
    step = form if kind is Pointwise else 1
    truth = F.conv2d(maps.double(), weight.double(), bias.double(), step, padding=size // 2)
    near(found, truth, 1e-5)


@pytest.mark.parametrize(("size", "way"), WAYS)
def test_closed_channels_are_left_out(processor: Any, size: int, way: Any) -> None:
    kind, form = way
    weight, maps = normal(64, 64, size, size), normal(2, 64, 8, 12, seed=1)
    maps[:, 5] = 0
    truth = kind(weight, form)(maps)
    weight[:, 5] = math.nan
    convolve = kind(weight, form)
    convolve.whole = False  # or it would be told from the weights
    assert torch.equal(convolve(maps), truth)


@pytest.mark.parametrize("weight", [math.inf, math.nan])
@pytest.mark.parametrize(("size", "way"), WAYS)
def test_zero_times_what_is_not_finite_is_no_number(size: int, way: Any, weight: float) -> None:
    kind, form = way
    weights = normal(64, 64, size, size)
    weights[7, 5] = weight
    found = kind(weights, form)(torch.zeros(2, 64, 8, 8))
    assert bool(found[:, 7].isnan().all())
    assert not bool(found[:, 8].isnan().any())


def test_numbers_that_are_none_stay_so() -> None:
    kernels, points = normal(64, 64, 3, 3), normal(64, 64, 1, 1)
    for convolve in (Tiled(kernels, 4), Windowed(kernels, AROUND), Pointwise(points)):
        maps = normal(2, 64, 8, 8, seed=1)
        maps[1, 5, 0, 0] = math.nan
        for least in (0.0, -math.inf):
            found = convolve(maps, least=least)
            assert bool(found[1, :, 0, 0].isnan().all())
            assert not bool(found[0].isnan().any())


@pytest.mark.parametrize(
    "convolve",
    [
        Tiled(normal(64, 32, 3, 3), 4),
        Pointwise(normal(64, 32, 1, 1)),
        Windowed(normal(64, 32, 3, 3), AROUND),
    ],
)
def test_forms_that_do_not_fit_are_refused(convolve: Any) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        convolve(normal(2, 64, 8, 8))
    for form in ((2, 64, 8, 7), (1, 64, 8, 8), (2, 32, 8, 8)):
        with pytest.raises(ValueError, match="do not fit"):
            convolve(normal(2, 32, 8, 8), None, normal(*form))
    with pytest.raises(ValueError, match="do not fit"):
        convolve(normal(2, 32, 8, 8), normal(32))
    for module in (conv(64, 64, 1), conv(64, 64, 3, padding=1)):
        assert quick.convolution(module, normal(64, 9, 9)) is None, "a map without a batch"


def test_of_no_pictures_there_are_no_maps() -> None:
    assert Tiled(normal(64, 32, 3, 3), 4)(normal(0, 32, 8, 8)).shape == (0, 64, 8, 8)


@pytest.mark.parametrize(
    "make",
    [lambda w: Tiled(w, 4), lambda w: Pointwise(w[:, :, :1, :1]), lambda w: Windowed(w, AROUND)],
)
def test_a_value_depends_on_no_other_picture_and_no_core(make: Any) -> None:
    convolve = make(normal(64, 64, 3, 3))
    maps = normal(40, 64, 14, 14, seed=1)
    together = convolve(maps)
    threads = torch.get_num_threads()
    try:
        for cores in (1, 2, 3, 50):
            torch.set_num_threads(cores)
            assert torch.equal(convolve(maps), together)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(convolve(maps[7:8]), together[7:8])
    assert torch.equal(convolve(maps[3:20]), together[3:20])


def test_tiles_are_those_that_take_fewest_products() -> None:
    def sides(*size: int, **how: Any) -> int:
        return winograd.side_for(normal(1, 1, *size), **how)

    assert sides(7, 7) == sides(14, 14) == sides(56, 56) == 4
    assert sides(2, 2) == sides(1, 1) == 0, "a window is as much as four of its places"
    many = {"most": winograd.MOST, "count": 400}
    assert [sides(n, n, **many) for n in (7, 8, 10, 12, 14)] == [7, 4, 5, 6, 7]
    assert sides(7, 7, most=winograd.MOST, count=50) == 4, "weights of larger ones take longer"
    assert sides(7, 7, count=10) == 0, "and for few maps it is not worth it"


@pytest.mark.parametrize(
    ("module", "way"),
    [
        (conv(64, 64, 3, padding=1), Tiled),
        (conv(64, 64, 1), Pointwise),
        (conv(64, 128, 3, padding=1, stride=2), Windowed),
        (conv(64, 128, 3, padding=1, stride=(2, 1)), None),
        (conv(64, 128, 3), Windowed),
        (conv(64, 128, 9, padding=4), Windowed),
        (conv(64, 128, 11), None),
        (conv(64, 64, 3, padding=1, stride=2), None),
        (conv(64, 64, 3, padding=1, padding_mode="reflect"), None),
        (conv(64, 64, 3, padding="same"), None),
        (conv(64, 64, 3, padding=2, dilation=2), None),
        (conv(64, 64, 3, padding=1, groups=2), None),
        (conv(64, 60, 3, padding=1), None),
        (conv(64, 12, 3, padding=1), None),
        (conv(16, 128, 3, padding=1), None),
        (conv(64, 64, 1, stride=2), Pointwise),
        (conv(64, 64, 1, stride=(2, 1)), None),
        (conv(64, 60, 1), None),
        (conv(64, 64, 3, padding=1, groups=64), Depthwise),
        (conv(64, 64, 3, padding=1, groups=64, dilation=2), None),
        (conv(64, 128, 1, padding=(1, 0)), Windowed),
        (conv(64, 64, 3, padding=1).double(), None),
        (conv(64, 128, 3, padding=1, stride=2).double(), None),
        (conv(64, 64, 1).to(torch.bfloat16), None),
    ],
)
def test_what_goes_which_way(
    monkeypatch: pytest.MonkeyPatch, processor: Any, module: nn.Conv2d, way: Any
) -> None:
    maps = normal(2, module.in_channels, 9, 9).to(module.weight.dtype)
    found = quick.convolution(module, maps)
    assert type(found) is (way or type(None))
    one = quick.convolution(module, maps[:, :, :1, :1][:1])
    assert type(one) is (way if way is Depthwise else type(None)), "too few places"
    for where in (winograd, pointwise, windowed, depthwise):
        monkeypatch.setattr(where, "registers", lambda: None)
    assert quick.convolution(module, maps) is None, "a processor of another kind"


def test_weights_are_laid_out_once_and_again_when_they_change() -> None:
    module, maps = conv(64, 64, 3, padding=1), normal(2, 64, 9, 9)
    first = quick.convolution(module, maps)
    assert first is not None
    near(first(maps, module.bias), module.double()(maps.double()), 1e-5)
    module.float()
    twin = conv(64, 64, 3, padding=1)
    twin.weight = module.weight
    second = quick.convolution(module, maps)
    assert second is quick.convolution(twin, maps)
    apart = conv(64, 64, 1, stride=2)
    every = conv(64, 64, 1)
    every.weight = apart.weight
    for each in (apart, every):  # that share weights, not steps
        way = quick.convolution(each, maps)
        assert way is not None
        near(way(maps, each.bias), F.conv2d(maps, each.weight, each.bias, each.stride), 2e-6)
    module.weight.mul_(2)
    third = quick.convolution(module, maps)
    assert third is not None
    assert third is not second
    near(third(maps, module.bias), module.double()(maps.double()), 1e-5)


def test_what_is_laid_out_goes_with_its_network() -> None:
    gc.collect()
    before = len(quick._KEPT)
    module = conv(64, 64, 1)
    assert quick.convolution(module, normal(2, 64, 9, 9)) is not None
    assert len(quick._KEPT) == before + 1
    del module
    gc.collect()
    assert len(quick._KEPT) <= before


@pytest.mark.parametrize(
    ("module", "kind", "name", "form", "weight"),
    [
        (winograd, Tiled, "_kernels", 4, normal(32, 32, 3, 3)),
        (pointwise, Pointwise, "_kernels", 1, normal(32, 32, 1, 1)),
        (depthwise, Depthwise, "_laid_out", (1, ((1, 1), (1, 1))), normal(32, 1, 3, 3)),
    ],
    ids=["tiles", "points", "channels"],
)
def test_what_is_laid_out_is_held_while_it_is_in_use(
    module: Any, kind: Any, name: str, form: Any, weight: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python 3.12 on two threads may lay it out at once, and what was first is let go."""
    lay_out, divide = getattr(kind, name).func, module.divided
    made: list[weakref.ref[Tensor]] = []
    seen: list[bool] = []

    def afresh(self: Any) -> Tensor:
        laid = lay_out(self)
        each = [laid] if isinstance(laid, Tensor) else [kernels for *_, kernels in laid]
        made.extend(map(weakref.ref, each))
        return laid

    def divided(work: Any, total: int, each: int) -> None:
        seen.extend(each() is not None for each in made)
        divide(work, total, each)

    monkeypatch.setattr(kind, name, property(afresh))
    monkeypatch.setattr(module, "divided", divided)
    maps, groups = normal(2, 32, 14, 14, seed=1), 32 // weight.shape[1]
    found = kind(weight, form)(maps)
    near(found, F.conv2d(maps, weight, padding=weight.shape[2] // 2, groups=groups), 1e-4)
    assert seen
    assert all(seen)
