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


class Spread(nn.Module):
    """A sum of a map of 24 channels and one of a single channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())
        self.wide, self.narrow = nn.Conv2d(16, 24, 1), nn.Conv2d(16, 1, 1)
        self.second = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.second(self.wide(x) + self.narrow(x))  # type: ignore[no-any-return]


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
    assert not left_out[1]
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12 * float(truth.abs().max()))
    assert truth.abs().max() > 0


ENDS = {
    "a sum, from its other map": ("resnet50", "layer4.1", "layer4"),
    "a sum of two convolutions": ("resnet50", "layer3", "layer4.0"),
    "a sum, of which one half is not below": ("resnet50", "layer4.0.relu", "layer4.0"),
    "a 3 x 3 convolution": ("resnet18", "layer3", "layer4.0.relu"),
    "a 1 x 1 convolution": ("resnet50", "layer4.1", "layer4.2.relu"),
    "a convolution of pixels": ("resnet18", None, "relu"),
    "a sum far above the pixels": ("resnet18", None, "layer1"),
}


@pytest.mark.parametrize("neurons", [1, 3, 12])
@pytest.mark.parametrize("rule", ["gradient", "lrp"])
@pytest.mark.parametrize("end", ENDS)
def test_channels_that_nobody_asks_for_are_not_made(
    end: str, rule: str, neurons: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, lower, upper = ENDS[end]
    traced = half_closed(kind)
    part = traced.slice(lower, upper)
    inputs = traced.inputs(seeded(2, 3, SIDE, SIDE), part)
    made, once = [], propagation.Propagation.forward

    def watched(*given: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        made.append(once(*given, **more))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(propagation.Propagation, "forward", watched)
    firing = torch.nonzero((part.module(*inputs).amax((2, 3)) > 0).all(0)).flatten()
    channels, rows = firing[-neurons:].repeat_interleave(2), torch.arange(2 * neurons) % 2
    found = relevance(part, inputs, channels, rows, rule)
    assert made[0].shape[1] == neurons
    monkeypatch.setattr(propagation, "FEW", 0.0)
    truth = relevance(part, inputs, channels, rows, rule)
    assert made[1].shape[1] > 5 * neurons
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12 * float(truth.abs().max()))
    assert truth.abs().max() > 0


def test_channels_that_a_single_neuron_does_not_reach_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval().double().requires_grad_(False)
    traced = Traced(model, seeded(1, 3, SIDE, SIDE))
    part = traced.slice("layer4.1", "layer4")
    inputs = traced.inputs(seeded(2, 3, SIDE, SIDE), part)
    weight = next(w for n, w in part.module.named_parameters() if n.endswith("conv3.weight"))
    convolved, once = [], narrowing.with_channels

    def watched(*given: object) -> nn.Module | None:
        convolved.append(once(*given))  # type: ignore[arg-type]
        return convolved[-1]

    monkeypatch.setattr(narrowing, "with_channels", watched)
    pairs = torch.tensor([7, 7]), torch.arange(2)
    found = relevance(part, inputs, *pairs, "lrp")
    wide = [
        each for each in convolved if isinstance(each, nn.Conv2d) and each.kernel_size == (3, 3)
    ]
    assert len(wide) == 1
    raising = int((weight[7] > 0).sum())
    assert wide[0].weight.shape[0] < raising + narrowing.STEP < 0.7 * weight.shape[1]
    monkeypatch.setattr(narrowing, "WORTH", 0.0)
    truth = relevance(part, inputs, *pairs, "lrp")
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12 * float(truth.abs().max()))
    assert truth.abs().max() > 0


def test_a_channel_that_is_spread_over_others_is_added_to_all_of_them() -> None:
    torch.manual_seed(0)
    traced = Traced(Spread().double().eval(), seeded(1, 3, 9, 9))
    part = traced.slice("first", "second")
    inputs = traced.inputs(seeded(4, 3, 9, 9), part)
    channels, rows = torch.tensor([5, 6, 6, 5]), torch.arange(4)
    found = relevance(part, inputs, channels, rows, "gradient")
    lower = inputs[0].detach().requires_grad_()
    values = part.module(lower, *inputs[1:])[rows, channels].flatten(1)
    (values * values.relu().detach()).sum().backward()
    assert lower.grad is not None
    torch.testing.assert_close(found, (lower.grad * lower).sum((2, 3)))


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
