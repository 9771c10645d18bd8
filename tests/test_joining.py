"""Convolutions that take over borders and rectifiers give the relevance of those that do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_rules import Childless
from torch import Tensor, fx, nn

from explorer.compute import attribution
from explorer.compute.joining import Joined
from explorer.compute.propagation import Propagation
from explorer.compute.pulls import total
from explorer.compute.rules import rules
from explorer.networks import modules as m
from explorer.networks.machine_code import registers
from explorer.networks.slices import Slice

needs_registers = pytest.mark.skipif(registers() is None, reason="no such registers here")


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def depthwise(taps: int, kind: type[nn.Module] = nn.ReLU6) -> list[nn.Module]:
    """A border that is not the same on all sides, a depthwise convolution with steps, what follows,
    and a convolution that mixes channels."""
    pad = m.SamePad((taps, taps), (2, 2), (1, 1))
    own = nn.Conv2d(32, 32, taps, 2, groups=32)
    return [pad, own, kind(), nn.Conv2d(32, 32, 1)]


def sliced(*layers: nn.Module, lower: str | None = "below") -> Slice:
    """A chain of modules with seeded weights, as a slice."""
    module = nn.Sequential(*layers).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for each in module.parameters():
        each.copy_(torch.randn(each.shape, generator=generator) / each[0].numel() ** 0.5)
    traced = fx.GraphModule(module, Childless().trace(module))
    x = seeded(1, 32, 14, 13)
    for node in traced.graph.nodes:
        x = traced.get_submodule(str(node.target))(x) if node.op == "call_module" else x
        node.meta["shape"] = tuple(x.shape)
    return Slice(traced, lower, "above", 1, True, {})


def asked(part: Slice, x: Tensor, rule: str, known: Any = None) -> Tensor:
    """Relevance of several channels of each picture."""
    rows = torch.arange(len(x)).repeat(5)
    about = torch.arange(len(rows)) % 8, rows, rule
    return attribution.relevance(part, (x,), *about, known=known)


@needs_registers
@pytest.mark.parametrize("rule", ["lrp", "gradient"])
@pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6, nn.SiLU])
@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("signed", [False, True])
def test_relevance_is_that_of_single_steps(
    rule: str, kind: type[nn.Module], taps: int, signed: bool
) -> None:
    layers = [nn.ReLU6(), *depthwise(taps, kind)]
    part = sliced(*(layers[1:] if signed else layers))
    x = 4 * seeded(3, 32, 14, 13)
    part.module.double()
    truth = asked(part, x.double(), rule)  # nothing is taken over in double precision
    part.module.float()
    found = asked(part, x, rule)
    assert (found - truth).abs().max() < 2e-5 * truth.abs().max()
    known = attribution.known(part, (x,), rule)
    assert set(known)
    torch.testing.assert_close(asked(part, x, rule, known), found, rtol=0, atol=1e-6)


@needs_registers
def test_what_is_left_to_a_convolution_and_cut_by_it() -> None:
    part = sliced(nn.ReLU6(), *depthwise(3))
    joined = Joined(part.module, rules(part))
    relu, pad, conv, cut, _ = (n for n in part.module.graph.nodes if n.op == "call_module")
    x = 4 * seeded(2, 32, 14, 13).clamp(min=0)
    assert joined.leaves(pad, x)
    assert not joined.leaves(relu, x)
    module = joined.module(conv)
    assert isinstance(module, m.Surrounded)
    made = joined.made(conv, module, x)
    truth = nn.Sequential(*(part.module.get_submodule(str(n)) for n in (1, 2, 3)))(x)
    torch.testing.assert_close(made, truth)
    torch.testing.assert_close(module(x).clamp(0, 6), truth)
    assert joined.cut(cut, made)
    assert not joined.cut(cut, made), "that was of the pass before"
    assert type(joined.module(conv)) is nn.Conv2d


@needs_registers
def test_maps_that_others_read_too_are_left_as_they_are() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.pad, self.conv, self.cut, self.point = nn.ReLU(), *depthwise(3)
            self.add = m.Add()

        def forward(self, x: Tensor) -> Tensor:
            wide = self.pad(self.first(x))
            made = self.conv(wide)
            return self.add(self.add(self.cut(made), made), wide[:, :, ::2, ::2][:, :, :7, :7])

    module = Fork().eval().requires_grad_(False)
    part = Slice(fx.GraphModule(module, Childless().trace(module)), "b", "a", 1, True, {})
    joined, x = Joined(part.module, rules(part)), seeded(1, 32, 14, 14)
    named = {str(node): node for node in part.module.graph.nodes}
    assert not joined.leaves(named["pad"], x.relu())
    made = joined.made(named["conv"], module.conv, module.pad(x.relu()))
    assert made.amin() < 0
    assert not joined.cut(named["cut"], made)
    propagation = Propagation(part, {})
    propagation.forward(x)
    start = seeded(1, 1, 32, 7, 7)
    found = total(propagation.down(start), x)[0]
    leaf = x.clone().requires_grad_()
    truth = torch.autograd.grad(module(leaf), leaf, start[0])[0]
    torch.testing.assert_close(found, truth)


@needs_registers
def test_what_is_not_finite_stays_so() -> None:
    part = sliced(nn.ReLU6(), *depthwise(3))
    part.module.get_submodule("2").weight[0] = torch.nan
    joined = Joined(part.module, rules(part))
    conv = next(n for n in part.module.graph.nodes if str(n.target) == "2")
    made = joined.made(conv, part.module.get_submodule("2"), seeded(1, 32, 15, 15))
    assert made[:, 0].isnan().all()
    assert made.amin(dim=(0, 2, 3))[1:].amin() < 0, "nothing is cut"


def test_the_first_convolution_from_pixels_keeps_its_border() -> None:
    """Its rule gives the border its share of relevance."""
    part = sliced(*depthwise(3), lower=None)
    joined = Joined(part.module, rules(part))
    pad = next(n for n in part.module.graph.nodes if str(n.target) == "0")
    assert not joined.leaves(pad, seeded(1, 32, 14, 13))
