"""Fused convolutions give what one operator after the other gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from test_graph import plain, shaken
from torch import Tensor, nn

from explorer.networks import fusing, quick, traced
from explorer.networks.fusing import Bordered, Fused
from explorer.networks.graph import Network
from explorer.networks.zoo import load

SOURCES = {
    "torchvision:resnet18": (9, 0),
    "timm:tf_efficientnet_lite0": (33, 5),
    "torchvision:mobilenet_v3_small": (14, 0),
    "torchvision:densenet121": (59, 0),
    "torchvision:googlenet": (57, 0),
}
"""How many convolutions of a network are fused at least (in single precision those that end in a
sum as well), and how many paddings."""


def untouched(program: Any) -> Any:
    return program


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions by PyTorch's operators alone."""
    monkeypatch.setattr(quick, "convolution", lambda *_: None)


def network(source: str, precision: str = "float32") -> Network:
    loaded = load(source, "random:0")
    return Network.build(replace(loaded, model=shaken(loaded.model)), "cpu", precision)


def fusible(found: Network) -> bool:
    """Whether this processor has the operators: all do in float32 whose PyTorch has oneDNN."""
    return fusing._supported(next(found._core.network.parameters()))


def same(one: Tensor, other: Tensor) -> None:
    """To the bit; to rounding where oneDNN has AVX2 alone, as its convolutions then begin with what
    is added instead of ending with it."""
    if "AVX512" in torch.backends.cpu.get_cpu_capability():
        assert torch.equal(one, other)
    else:
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * float(other.abs().max()))


def extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.amax((2, 3)), values.sum((2, 3))


@pytest.fixture(params=[(source, p) for source in SOURCES for p in ("float32", "bf16")])
def built(request: pytest.FixtureRequest) -> tuple[str, Network]:
    source, precision = request.param
    return source, network(source, precision)


@pytest.mark.usefixtures("plainly")
def test_the_values_are_the_same(
    built: tuple[str, Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, found = built
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layers = [layer.name for layer in found.info.layers]
    reduced, kept = found.features(x, layers, extremes), found.features(x, layers)
    programs = list(found._core._programs.values())
    found._core._programs.clear()
    monkeypatch.setattr(traced, "fuse", untouched)
    plain, maps = found.features(x, layers, extremes), found.features(x, layers)
    for layer in layers:
        same(kept[layer], maps[layer])
        for one, other in zip(reduced[layer], plain[layer], strict=True):
            same(one, other)
    for program in programs if fusible(found) else ():
        modules = list(program.modules())
        convolutions, paddings = SOURCES[source]
        assert sum(isinstance(each, Fused) for each in modules) >= convolutions
        assert sum(isinstance(each, Bordered) for each in modules) == paddings


@pytest.mark.usefixtures("plainly")
def test_lower_maps_are_the_same(
    built: tuple[str, Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, found = built
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    part = found.slice(found.info.layers[2].name, found.info.layers[-2].name)
    fused = found.inputs(x, part)
    found._core._programs.clear()
    monkeypatch.setattr(traced, "fuse", untouched)
    for one, other in zip(fused, found.inputs(x, part), strict=True):
        same(one, other)


@pytest.mark.parametrize("source", [*SOURCES, "torchvision:resnet50", "timm:res2net50_26w_4s"])
def test_the_quick_ways_give_the_same_values(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = network(source)
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layers = [layer.name for layer in found.info.layers]
    quickly, kept = found.features(x, layers, extremes), found.features(x, layers)
    written_over = [
        each.over
        for program in found._core._programs.values()
        for each in program.modules()
        if isinstance(each, Fused)
    ]
    sums = source not in ("torchvision:densenet121", "torchvision:googlenet")
    assert any(written_over) == (sums and fusible(found))
    found._core._programs.clear()
    monkeypatch.setattr(traced, "fuse", untouched)
    plain, maps = found.features(x, layers, extremes), found.features(x, layers)
    for layer in layers:
        scale = float(maps[layer].abs().max())
        assert float((kept[layer] - maps[layer]).abs().max()) <= 3e-5 * scale, layer
        for one, other in zip(quickly[layer], plain[layer], strict=True):
            assert float((one - other).abs().max()) <= 3e-5 * float(other.abs().max()), layer


class Block(nn.Module):
    """A residual block whose sum is read before and after it is rectified."""

    def __init__(self, ceiling: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 8, 1)
        self.act = nn.ReLU6() if ceiling else nn.ReLU()
        self.last = nn.ReLU()
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.second(self.act(x))
        x = x + self.third(self.act(x))
        return cast(Tensor, self.head(self.last(x).mean((2, 3))))


@pytest.mark.usefixtures("plainly")
@pytest.mark.parametrize("ceiling", [False, True])
def test_what_is_also_read_unrectified_stays_so(
    ceiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    found = Network.build(plain(Block(ceiling)))
    x = 9 * torch.randn(4, 3, 16, 16)
    layers = [layer.name for layer in found.info.layers]
    fused, reduced = found.features(x, layers), found.features(x, layers, extremes)
    program = found._core._programs.popitem()[1]
    assert any(isinstance(each, Fused) for each in program.modules()) == fusible(found)
    found._core._programs.clear()
    monkeypatch.setattr(traced, "fuse", untouched)
    maps, logits = found.features(x, layers), found.logits(x)
    assert torch.allclose(maps[layers[-1]].flatten(1), logits)
    for layer in layers:
        assert torch.equal(fused[layer], maps[layer]), layer
        assert torch.equal(reduced[layer][0], extremes(maps[layer])[0]), layer


def test_values_that_are_no_numbers_are_not_rectified_away() -> None:
    found = network("torchvision:resnet18")
    with torch.no_grad():
        weights = found._core.network.get_submodule("layer4_0_conv1").weight
        weights[3] = float("nan")
    maps = found.features(torch.randn(1, 3, 64, 64), ["layer4.0.relu"])["layer4.0.relu"]
    assert bool(maps[:, 3].isnan().all())
    assert not bool(maps[:, :3].isnan().any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_ceiling_is_that_of_clamping(dtype: torch.dtype) -> None:
    x = (9 * torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))).to(dtype)
    x[0, 0, 0, :3] = torch.tensor([float("inf"), -float("inf"), -0.0])
    truth = torch.clamp_max(x, 6)
    assert torch.equal(fusing.limited(x, 6.0), truth)
    assert not torch.equal(x, truth)
    fusing.limited(x, 6.0, x)
    assert torch.equal(x, truth)
