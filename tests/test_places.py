"""Transposed convolutions place by place are plain ones, wherever that is wanted."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from explorer.compute import places
from explorer.compute.attribution import relevance
from explorer.compute.pulls import Later, Product
from explorer.networks.machine_code import PROCESSORS, registers
from explorer.networks.traced import Traced

needs_registers = pytest.mark.skipif(registers() is None, reason="no such registers here")


def seeded(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CONVOLUTIONS = [
    nn.Conv2d(40, 72, 1),
    nn.Conv2d(40, 72, 3, padding=1),
    nn.Conv2d(40, 72, 3, stride=2, padding=1),
    nn.Conv2d(40, 72, 3, padding=2, dilation=2),
    nn.Conv2d(40, 72, (1, 3), stride=(3, 2), padding=(0, 1)),
    nn.Conv2d(40, 72, 1, stride=2),
]


def sparse(*shape: int, seed: int) -> Tensor:
    """Maps [...,C,H,W], channels last, half of them zero."""
    return seeded(*shape, seed=seed).relu().movedim(-3, -1).contiguous().movedim(-1, -3)


@pytest.fixture(params=PROCESSORS)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of processor that there is code for: the code runs on any of them."""
    monkeypatch.setattr(places, "registers", lambda: PROCESSORS[request.param])


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("turns", [1, 45, 130])
@pytest.mark.parametrize("chosen", [True, False], ids=["wanted", "everywhere"])
def test_places_together_are_the_whole_map(conv: nn.Conv2d, turns: int, chosen: bool) -> None:
    conv = conv.requires_grad_(False)
    x = sparse(2, 40, 9, 8, seed=1)
    x[0, :, 2, 2] = 0  # nothing is wanted there
    y = conv(x)
    maps, by = sparse(turns, *y.shape, seed=2), sparse(*y.shape, seed=4)
    by[1, :, 0, 0] = 0  # nothing comes from there
    quick = places.Transposed(conv, conv.weight, x.shape[2:], x if chosen else None)
    later = quick.later(Product(maps, by))
    found, summed = later.maps, later.summed(x)
    truth = transposed(conv, x, maps * by)
    assert found.shape == truth.shape
    whole = (truth * x).sum((3, 4))
    torch.testing.assert_close(summed, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))
    if chosen:
        assert not found[(x == 0).expand_as(found)].any()
        found, truth = found * x, truth * x
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-5 * float(truth.abs().max()))
    assert truth.abs().max() > 0


def transposed(conv: nn.Conv2d, x: Tensor, relevance: Tensor) -> Tensor:
    """What comes down to x, start by start, as autograd has it."""
    x = x.clone().requires_grad_()
    y = conv(x)
    return torch.stack([torch.autograd.grad(y, x, r, retain_graph=True)[0] for r in relevance])


@pytest.mark.usefixtures("processor")
def test_deep_weights_come_in_pieces() -> None:
    conv = nn.Conv2d(16, 2048, 1).requires_grad_(False)
    x, by = sparse(1, 16, 2, 2, seed=1), seeded(1, 2048, 2, 2, seed=4)
    maps = seeded(9, *by.shape, seed=2)
    later = places.Transposed(conv, conv.weight, (2, 2), x).later(Product(maps, by))
    truth = transposed(conv, x, maps * by)
    torch.testing.assert_close(later.maps * x, truth * x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(later.summed(x), (truth * x).sum((3, 4)), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("conv", CONVOLUTIONS[:3], ids=str)
def test_a_start_comes_down_the_same_whatever_comes_with_it(conv: nn.Conv2d) -> None:
    conv = conv.requires_grad_(False)
    x = sparse(1, 40, 9, 8, seed=1)
    y = conv(x)
    maps, by = sparse(300, *y.shape, seed=2), sparse(*y.shape, seed=4)
    quick = places.Transposed(conv, conv.weight, x.shape[2:], x)
    many = quick.later(Product(maps, by))
    for some in (slice(3), slice(40, 140), slice(299, 300)):
        few = quick.later(Product(maps[some], by))
        assert torch.equal(few.maps, many.maps[some])
        assert torch.equal(few.summed(x), many.summed(x)[some])


@needs_registers
def test_maps_are_left_as_they_are() -> None:
    conv = nn.Conv2d(40, 72, 1).requires_grad_(False)
    maps, by = sparse(5, 1, 72, 4, 4, seed=2), sparse(1, 72, 4, 4, seed=4)
    before = maps.clone(), by.clone()
    later = places.Transposed(conv, conv.weight, (4, 4), None).later(Product(maps, by, shared=True))
    assert later.maps.shape[2:] == (40, 4, 4)
    assert later.summed(sparse(1, 40, 4, 4, seed=5)).shape == (5, 1, 40)
    assert torch.equal(maps, before[0])
    assert torch.equal(by, before[1])


@needs_registers
def test_where_nothing_is_open_nothing_comes() -> None:
    conv = nn.Conv2d(40, 72, 1).requires_grad_(False)
    x = sparse(1, 40, 3, 3, seed=1)
    quick = places.Transposed(conv, conv.weight, (3, 3), x)
    later = quick.later(Product(seeded(5, 1, 72, 3, 3), torch.zeros(1, 72, 3, 3)))
    assert not later.maps.any()
    assert not later.summed(x).any()


def test_forms_that_machine_code_is_not_for_are_refused() -> None:
    x, maps = seeded(1, 40, 3, 3), seeded(2, 1, 70, 3, 3)
    right = seeded(2, 1, 72, 3, 3)
    refused = (70, maps, maps[0], x), (72, maps, maps[0], x), (72, right, right[0, :, :8], x)
    for outer, given, by, wanted in (*refused, (72, right, right[0], x[..., :2])):
        conv = nn.Conv2d(40, outer, 1).requires_grad_(False)
        quick = places.Transposed(conv, conv.weight, (3, 3), wanted)
        with pytest.raises(ValueError, match="do not go apart"):
            quick.later(Product(given, by))
    later = places.Transposed(conv, conv.weight, (3, 3), x).later(Product(right, right[0]))
    assert later.summed is not None
    with pytest.raises(ValueError, match="not of the form"):
        later.summed(x[:, :8])


def worth_it(
    turns: int, open_: float, kernel: int = 1, tiles: int = 0, dtype: torch.dtype = torch.float32
) -> bool:
    conv = nn.Conv2d(512, 512, kernel, padding=kernel // 2).requires_grad_(False)
    by = (torch.arange(512 * 49).reshape(1, 512, 7, 7) % 100 < 100 * open_).to(dtype)
    maps = torch.zeros(turns, 1, 512, 1, 1, dtype=dtype).expand(-1, -1, -1, 7, 7)
    quick = places.Transposed(conv, conv.weight, (7, 7), by, tiles)
    return quick.worth_it(Product(maps, by))


@needs_registers
def test_many_turns_of_sparse_maps_go_place_by_place() -> None:
    assert worth_it(400, 0.8)
    assert worth_it(8, 0.6)
    assert not worth_it(400, 0.98), "hardly anything is closed"
    assert not worth_it(12, 0.8), "too few turns for what reading the weights takes"
    assert not worth_it(7, 0.1)
    assert not worth_it(400, 0.6, dtype=torch.float64)


@needs_registers
def test_what_goes_by_tiles_is_left_to_them_unless_little_is_open() -> None:
    assert worth_it(400, 0.9, kernel=3), "there are no tiles"
    assert not worth_it(400, 0.65, kernel=3, tiles=7)
    assert worth_it(400, 0.65, kernel=3, tiles=4), "smaller tiles take more products"
    assert worth_it(400, 0.5, kernel=3, tiles=7)
    assert worth_it(60, 0.65, kernel=3, tiles=7), "weights are laid out for tiles"


@needs_registers
@pytest.mark.parametrize(
    ("rule", "lower"),
    [("lrp", "layer3"), ("gradient", "layer3"), ("sensitivity", "layer4.0"), ("raising", "layer3")],
)
def test_relevance_is_that_of_plain_convolutions(
    rule: str, lower: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval().requires_grad_(False)
    traced = Traced(model, seeded(1, 3, 96, 96))
    part = traced.slice(lower, "layer4")
    inputs = traced.inputs(seeded(2, 3, 96, 96), part)
    channels, rows = torch.arange(450) * 4 % 2048, (torch.arange(450) > 400).long()
    kinds: set[tuple[int, int]] = set()
    once = places.Transposed.later

    def watched(self: places.Transposed, given: Product) -> Later:
        kinds.add(tuple(self._weight.shape[2:]))
        return once(self, given)

    monkeypatch.setattr(places.Transposed, "later", watched)
    found = relevance(part, inputs, channels, rows, rule)
    assert kinds == {(1, 1), (3, 3)} if lower == "layer3" else {(1, 1)}, "steps of two"
    monkeypatch.setattr(places.Transposed, "worth_it", lambda *_: False)
    truth = relevance(part, inputs, channels, rows, rule)
    size = float(truth.abs().max())
    torch.testing.assert_close(found, truth, rtol=1e-3, atol=2e-6 * size)
    assert size > 0
