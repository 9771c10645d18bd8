"""Leaving out channels that are closed changes no relevance."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from explorer.compute import narrowing, propagation
from explorer.compute.attribution import ATTRIBUTIONS, relevance
from explorer.compute.pulls import Lone
from explorer.networks.traced import Traced

SIDE = 64


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3)).double()


def half_closed(kind: str) -> Traced:
    """A network whose norms shut about half of the channels for good."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, kind)().eval().double().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            shut = torch.rand(module.num_features) < 0.5
            module.bias.masked_fill_(shut, -1e4)
    return Traced(model, seeded(1, 3, SIDE, SIDE))


@pytest.fixture(scope="module", params=["resnet18", "resnet50", "densenet121"])
def network(request: pytest.FixtureRequest) -> tuple[str, Traced]:
    return request.param, half_closed(request.param)


LAYERS = {
    "resnet18": ("layer3", "layer4"),
    "resnet50": ("layer3", "layer4"),
    "densenet121": (
        "features.denseblock4.denselayer12.relu2",
        "features.denseblock4.denselayer16.relu2",
    ),
}


@pytest.mark.parametrize("rule", ATTRIBUTIONS)
def test_relevance_is_that_of_all_channels(
    network: tuple[str, Traced], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, traced = network
    part = traced.slice(*LAYERS[name])
    inputs = traced.inputs(seeded(2, 3, SIDE, SIDE), part)
    channels, rows = torch.arange(40), torch.arange(40) % 2
    left_out = []
    once = narrowing.opened

    def watched(*given: object) -> narrowing.Opened:
        found = once(*given)  # type: ignore[arg-type]
        left_out.append(len(found))
        return found

    monkeypatch.setattr(narrowing, "opened", watched)
    found = relevance(part, inputs, channels, rows, rule)
    assert left_out[0] > 1
    monkeypatch.setattr(propagation, "LEAST_TURNS", 1000)
    truth = relevance(part, inputs, channels, rows, rule)
    assert len(left_out) == 1
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12 * float(truth.abs().max()))
    assert truth.abs().max() > 0


def test_what_is_open_anywhere_stays() -> None:
    value = torch.zeros(3, 64, 5, 5)
    value[1, 7, 4, 0] = 1e-30
    value[2, 63, 2, 2] = float("nan")
    value[:, 20:30] = 1.0
    kept = narrowing._open(value)
    assert kept is not None
    assert len(kept) == 16
    assert {7, 63, *range(20, 30)} <= set(kept.tolist())
    assert kept.tolist() == sorted(kept.tolist())


def test_hardly_any_closed_is_not_worth_it() -> None:
    value = torch.ones(1, 64, 2, 2)
    value[:, 5] = 0.0
    assert narrowing._open(value) is None
    closed = narrowing._open(torch.zeros(1, 64, 2, 2))
    assert closed is not None
    assert len(closed) == 16


def test_shares_are_told_by_the_numbers_of_another_choice() -> None:
    before, after = torch.tensor([1, 3, 4]), torch.tensor([0, 3, 4, 5])
    maps = seeded(2, 1, 3, 2, 2)
    found = narrowing._renumbered(maps, before, after, 6)
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found[:, :, 1:3], maps[:, :, 1:])
    assert not found[:, :, [0, 3]].any()
    everything = narrowing._renumbered(maps, before, None, 6)
    assert isinstance(everything, torch.Tensor)
    assert torch.equal(everything[:, :, before], maps)
    assert not everything[:, :, [0, 2, 5]].any()


def test_a_lone_channel_that_is_left_out_has_nothing() -> None:
    lone = Lone(torch.tensor([[3, 2]]), seeded(1, 2, 2, 2))
    found = narrowing._renumbered(lone, None, torch.tensor([0, 3, 4, 5]), 6)
    assert isinstance(found, Lone)
    assert found.channel[0, 0] == 1
    assert torch.equal(found.value[0, 0], lone.value[0, 0])
    assert not found.value[0, 1].any()
