"""Transposed convolutions place by place are plain ones, wherever that is wanted."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from explorer.compute import places
from explorer.compute.attribution import relevance
from explorer.compute.convolutions import convolution_pull
from explorer.compute.pulls import Later, Product
from explorer.networks.traced import Traced


def seeded(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CONVOLUTIONS = [
    nn.Conv2d(40, 70, 1),
    nn.Conv2d(40, 70, 3, padding=1),
    nn.Conv2d(40, 70, 3, stride=2, padding=1),
    nn.Conv2d(40, 70, 3, padding=2, dilation=2),
    nn.Conv2d(40, 70, (1, 3), stride=(3, 2), padding=(0, 1)),
    nn.Conv2d(40, 70, 1, stride=2),
]


def sparse(*shape: int, seed: int) -> Tensor:
    """Maps [...,C,H,W], channels last, half of them zero."""
    return seeded(*shape, seed=seed).relu().movedim(-3, -1).contiguous().movedim(-1, -3)


@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("turns", [1, 32, 45])
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
    plain = convolution_pull(conv, conv.weight, x, y)
    (truth,) = plain(maps * by)
    assert found.shape == truth.shape
    whole = (truth * x).sum((3, 4))
    torch.testing.assert_close(summed, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))
    if chosen:
        found, truth = found * x, truth * x
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-5 * float(truth.abs().max()))
    assert truth.abs().max() > 0


def test_maps_are_left_as_they_are() -> None:
    conv = nn.Conv2d(40, 70, 1).requires_grad_(False)
    maps, by = sparse(5, 1, 70, 4, 4, seed=2), sparse(1, 70, 4, 4, seed=4)
    before = maps.clone(), by.clone()
    later = places.Transposed(conv, conv.weight, (4, 4), None).later(Product(maps, by, shared=True))
    assert later.maps.shape[2:] == (40, 4, 4)
    assert later.summed(sparse(1, 40, 4, 4, seed=5)).shape == (5, 1, 40)
    assert torch.equal(maps, before[0])
    assert torch.equal(by, before[1])


def worth_it(turns: int, open_: float, dtype: torch.dtype = torch.float32) -> bool:
    conv = nn.Conv2d(512, 512, 1).requires_grad_(False)
    by = (torch.arange(512 * 16).reshape(1, 512, 4, 4) % 100 < 100 * open_).to(dtype)
    maps = torch.zeros(turns, 1, 512, 1, 1, dtype=dtype).expand(-1, -1, -1, 4, 4)
    quick = places.Transposed(conv, conv.weight, (4, 4), by)
    return quick.worth_it(Product(maps, by))


def test_many_turns_of_sparse_maps_go_place_by_place() -> None:
    assert worth_it(400, 0.6)
    assert worth_it(100, 0.3)
    assert not worth_it(100, 0.6), "too few turns for what choosing takes"
    assert not worth_it(400, 0.9), "hardly anything is closed"
    assert not worth_it(30, 0.1)
    assert not worth_it(400, 0.6, torch.float64)


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
