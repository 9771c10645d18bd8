"""Every relevance rule against a slow textbook twin in float64, and against zennit's."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import zennit.rules
from torch import Tensor, fx, nn

from explorer.compute import rules as r
from explorer.compute.propagation import Propagation
from explorer.compute.pulls import Lone, Product, Share, total
from explorer.networks import modules as m
from explorer.networks.slices import Slice
from explorer.records import MissingRule

EPS = 1e-6


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer(module: nn.Module, seed: int = 1) -> nn.Module:
    """The module in float64 with normal weights and biases."""
    module = module.double().eval().requires_grad_(False)
    for number, parameter in enumerate(module.parameters()):
        parameter.copy_(normal(*parameter.shape, seed=seed + number))
    return module


class Childless(fx.Tracer):
    """Traces every module that has no children as one call."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not list(m.children())


def slice_of(module: nn.Module, lower: str | None = "below") -> Slice:
    """A handmade network as a slice."""
    module = module.double().eval().requires_grad_(False)
    network = fx.GraphModule(module, Childless().trace(module))
    return Slice(network, lower, "above", 1, True, {})


def propagated(module: nn.Module, x: Tensor, relevance: Tensor, lower: str | None = "b") -> Tensor:
    part = slice_of(module, lower)
    propagation = Propagation(part, r.rules(part))
    z = propagation.forward(x)
    return total(propagation.down(relevance.reshape(1, *z.shape)), x)[0]


def applied(rule: r.Rule, module: nn.Module, x: tuple[Tensor, ...], relevance: Tensor) -> Any:
    """A rule alone: relevance of the output to that of each input."""
    output = module(*x)
    given = rule(module, x, output).down([relevance[None].clone()], output)
    return [total(shares, like)[0] for shares, like in zip(given, x, strict=True)]


def several(rule: r.Rule, module: nn.Module, x: Tensor, relevance: Tensor) -> Tensor:
    """A rule of one input alone: relevance [T,B,...] of the output to that of the input."""
    output = module(x)
    return total(rule(module, (x,), output).down([relevance.clone()], output)[0], x)


def away(z: Tensor) -> Tensor:
    return z + EPS * torch.where(z < 0, -1.0, 1.0).to(z)


def taps(conv: nn.Conv2d, height: int, width: int):
    """Every (output channel, row, column, input channel, row, column, weight index) of a
    convolution, the padding left out: nested loops as a textbook writes them."""
    high = (height + 2 * conv.padding[0] - conv.dilation[0] * (conv.kernel_size[0] - 1) - 1) // (
        conv.stride[0]
    ) + 1
    wide = (width + 2 * conv.padding[1] - conv.dilation[1] * (conv.kernel_size[1] - 1) - 1) // (
        conv.stride[1]
    ) + 1
    group_in, group_out = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    places = itertools.product(
        range(conv.out_channels),
        range(high),
        range(wide),
        range(group_in),
        range(conv.kernel_size[0]),
        range(conv.kernel_size[1]),
    )
    for j, p, q, i, u, v in places:
        row = p * conv.stride[0] - conv.padding[0] + u * conv.dilation[0]
        column = q * conv.stride[1] - conv.padding[1] + v * conv.dilation[1]
        if 0 <= row < height and 0 <= column < width:
            yield (j, p, q), (j // group_out * group_in + i, row, column), (j, i, u, v)


CONVOLUTIONS = [
    nn.Conv2d(3, 4, 3),
    nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
    nn.Conv2d(4, 4, 3, padding=1, groups=4),
    nn.Conv2d(4, 6, (3, 1), dilation=(2, 1), groups=2),
    nn.Conv2d(3, 5, 1),
    nn.Conv2d(3, 5, 1, stride=2),
    nn.Conv2d(3, 4, (2, 3), stride=(2, 3), padding=(1, 0)),
]


@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("signed", [False, True])
def test_z_plus_is_the_textbook_rule(conv: nn.Conv2d, signed: bool) -> None:
    conv = layer(conv)
    x = normal(conv.in_channels, 6, 5)
    x = x if signed else x.relu()
    relevance = normal(*conv(x[None]).shape, seed=5)
    z, truth = torch.zeros_like(relevance[0]), torch.zeros_like(x)
    if conv.bias is not None:
        z += conv.bias.clamp(min=0)[:, None, None]
    for up, down, w in taps(conv, 6, 5):
        z[up] += max(0, conv.weight[w] * x[down])
    for up, down, w in taps(conv, 6, 5):
        truth[down] += max(0, conv.weight[w] * x[down]) * relevance[0][up] / (z[up] + EPS)
    torch.testing.assert_close(propagated(nn.Sequential(conv), x[None], relevance)[0], truth)


@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6])
def test_z_plus_below_a_rectifier_is_the_same_rule(conv: nn.Conv2d, kind: type[nn.Module]) -> None:
    conv = layer(conv)
    x = normal(2, conv.in_channels, 6, 5)
    y = conv(x)
    relevance = normal(3, *y.shape, seed=5) * kind()(y)
    truth = several(r.z_plus, conv, x, relevance)
    found = several(r.z_plus_below_zero, conv, x, relevance)
    torch.testing.assert_close(found, truth)
    single = layer(conv).float()
    some = several(r.z_plus_below_zero, single, x.float(), relevance.float())
    assert (some - truth).abs().max() < 2e-6 * truth.abs().max()
    conv.double()
    above = nn.Sequential(conv, kind(), nn.Conv2d(conv.out_channels, 2, 1))
    ruled = list(r.rules(slice_of(above)).values())
    assert ruled == [r.z_plus_below_zero, r.pass_on, r.z_plus_above_zero]


@pytest.mark.parametrize("between", [m.SamePad((3, 3), (1, 1), (1, 1)), nn.MaxPool2d(2)])
def test_what_a_rectifier_made_is_never_negative_behind_a_border_and_pooling(
    between: nn.Module,
) -> None:
    conv = layer(nn.Conv2d(3, 4, 3))
    ruled = r.rules(slice_of(nn.Sequential(nn.ReLU(), between, conv))).values()
    assert list(ruled)[-1] is r.z_plus_above_zero
    ruled = r.rules(slice_of(nn.Sequential(nn.LeakyReLU(), between, conv))).values()
    assert list(ruled)[-1] is r.z_plus


def test_an_output_that_is_nowhere_above_zero_gives_nothing() -> None:
    conv = layer(nn.Conv2d(3, 4, 3)).requires_grad_(False)
    conv.bias.fill_(-1e3)
    conv.weight[1:] = 0
    x = normal(1, 3, 6, 5)
    y = conv(x)
    found = several(r.z_plus_below_zero, conv, x, torch.zeros_like(y)[None])
    assert torch.equal(found, torch.zeros_like(found))


@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=str)
def test_flat_is_the_textbook_rule_and_for_the_first_convolution_only(conv: nn.Conv2d) -> None:
    conv = layer(conv)
    x = normal(conv.in_channels, 6, 5)
    relevance = normal(*conv(x[None]).shape, seed=5)
    count, truth = torch.zeros_like(relevance[0]), torch.zeros_like(x)
    for up, _, _ in taps(conv, 6, 5):
        count[up] += 1
    for up, down, _ in taps(conv, 6, 5):
        truth[down] += relevance[0][up] / (count[up] + EPS)
    found = propagated(nn.Sequential(conv), x[None], relevance, lower=None)[0]
    torch.testing.assert_close(found, truth)
    second = nn.Sequential(nn.ReLU(), layer(nn.Conv2d(3, 3, 1)), nn.ReLU(), nn.Conv2d(3, 2, 1))
    ruled = r.rules(slice_of(second, lower=None)).values()
    assert list(ruled) == [r.pass_on, r.flat, r.pass_on, r.z_plus_above_zero]


@pytest.mark.parametrize("bias", [False, True])
def test_epsilon_linear_is_the_textbook_rule(bias: bool) -> None:
    linear = layer(nn.Linear(7, 4, bias=bias))
    x, relevance = normal(7), normal(4, seed=5)
    z, truth = torch.zeros(4).double(), torch.zeros(7).double()
    for j in range(4):
        z[j] = sum(linear.weight[j, i] * x[i] for i in range(7)) + (linear.bias[j] if bias else 0)
        for i in range(7):
            truth[i] += x[i] * linear.weight[j, i] * relevance[j] / away(z[j])
    found = propagated(nn.Sequential(linear), x[None], relevance[None])[0]
    torch.testing.assert_close(found, truth)


def test_a_dead_output_moves_no_relevance_and_no_nan() -> None:
    linear = layer(nn.Linear(3, 2, bias=False))
    found = propagated(nn.Sequential(linear), torch.zeros(1, 3).double(), torch.ones(1, 2).double())
    assert torch.equal(found, torch.zeros(1, 3).double())
    assert r.stabilise(torch.tensor([0.0, -0.0, 1.0, -1.0])).tolist() == pytest.approx(
        [EPS, EPS, 1 + EPS, -1 - EPS], rel=1e-7
    )


class Residual(nn.Module):
    """x -> body(x) + x, or their product."""

    def __init__(self, body: nn.Module, join: nn.Module) -> None:
        super().__init__()
        self.body, self.join = body, join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.body(x), x)


def test_sums_share_by_value() -> None:
    x, y, relevance = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1), normal(2, 3, 4, 4, seed=2)
    shares = applied(r.epsilon, m.Add(), (x, y), relevance)
    for value, share in zip((x, y), shares, strict=True):
        torch.testing.assert_close(share, value * relevance / away(x + y))
    body = layer(nn.Conv2d(3, 3, 1))
    found = propagated(Residual(body, m.Add()), x, relevance)
    (through,) = applied(r.z_plus, body, (x,), body(x) * relevance / away(body(x) + x))
    torch.testing.assert_close(found, through + x * relevance / away(body(x) + x))


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), m.Mean((2, 3)), m.Mean([-2, -1], keepdim=True)],
    ids=str,
)
def test_averages_share_by_value(pool: nn.Module) -> None:
    x = normal(2, 3, 4, 4)
    side = 2 if isinstance(pool, nn.AvgPool2d) else 1
    relevance = normal(2, 3, side, side, seed=2)
    size = 4 // side
    truth = torch.zeros_like(x)
    for p, q in itertools.product(range(4), range(4)):
        top, left = p // size * size, q // size * size
        window = x[:, :, top : top + size, left : left + size]
        share = relevance[:, :, p // size, q // size] / away(window.mean((2, 3)))
        truth[:, :, p, q] = x[:, :, p, q] / size**2 * share
    torch.testing.assert_close(propagated(nn.Sequential(pool), x, relevance), truth)


def test_maximum_takes_all() -> None:
    x, relevance = normal(2, 3, 4, 4), normal(2, 3, 2, 2, seed=2)
    truth = torch.zeros_like(x)
    for b, c, p, q in itertools.product(range(2), range(3), range(2), range(2)):
        place = int(x[b, c, 2 * p : 2 * p + 2, 2 * q : 2 * q + 2].argmax())
        truth[b, c, 2 * p + place // 2, 2 * q + place % 2] = relevance[b, c, p, q]
    assert torch.equal(propagated(nn.Sequential(nn.MaxPool2d(2)), x, relevance), truth)


@pytest.mark.parametrize(
    "module",
    [
        *(nn.ReLU(), nn.ReLU6(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.LeakyReLU(), nn.Tanh()),
        *(nn.BatchNorm2d(3), m.Scale(-2.0), m.Shift(torch.ones(3, 1, 1))),
    ],
    ids=str,
)
def test_elementwise_modules_pass_relevance_on(module: nn.Module) -> None:
    x, relevance = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=2)
    assert torch.equal(propagated(nn.Sequential(module), x, relevance), relevance)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.join = layer(nn.Conv2d(3, 2, 1)), m.Concatenate(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.first(x), x)


class Fork(nn.Module):
    """The sum of two branches, each cut at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = layer(nn.Conv2d(3, 3, 1)), layer(nn.Conv2d(3, 3, 3, padding=1), 4)
        self.cut, self.other, self.join = nn.ReLU(), nn.ReLU(), m.Add()

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.cut(self.first(x)), self.other(self.second(x)))


@pytest.mark.parametrize("turns", [1, 9])
def test_gradients_of_branches_that_are_cut_stay_apart(turns: int) -> None:
    x, gradients = normal(2, 3, 4, 4), normal(turns, 2, 3, 4, 4, seed=2)
    network = Fork()
    propagation = Propagation(slice_of(network), {})
    propagation.forward(x)
    found = total(propagation.down(gradients), x)
    for gradient, given in zip(gradients, found, strict=True):
        leaf = x.clone().requires_grad_()
        torch.testing.assert_close(given, torch.autograd.grad(network(leaf), leaf, gradient)[0])


def test_concatenation_gives_each_part_its_own() -> None:
    x, relevance = normal(2, 3, 4, 4), normal(2, 5, 4, 4, seed=2)
    network = Branches()
    (through,) = applied(r.z_plus, network.first, (x,), relevance[:, :2])
    torch.testing.assert_close(propagated(network, x, relevance), through + relevance[:, 2:])


def test_layer_norm_holds_the_deviation_constant() -> None:
    norm = layer(nn.LayerNorm(5))
    x, relevance = normal(5), normal(5, seed=2)
    deviation = torch.sqrt(((x - x.mean()) ** 2).mean() + norm.eps)
    z, truth = norm(x), torch.zeros(5).double()
    for i, j in itertools.product(range(5), range(5)):
        slope = norm.weight[j] / deviation * ((i == j) - 1 / 5)
        truth[i] += x[i] * slope * relevance[j] / away(z[j])
    found = propagated(nn.Sequential(norm), x[None], relevance[None])[0]
    torch.testing.assert_close(found, truth)


def test_group_norm_holds_the_deviation_of_each_group_constant() -> None:
    norm = layer(nn.GroupNorm(2, 4))
    x, relevance = normal(2, 4, 2, 3), normal(2, 4, 2, 3, seed=2)
    z, truth = norm(x), torch.zeros_like(x)
    for image, group in itertools.product(range(2), range(2)):
        own = image, slice(2 * group, 2 * group + 2)
        deviation = torch.sqrt(x[own].var(unbiased=False) + norm.eps)
        for (c, *up), (d, *down) in itertools.product(np.ndindex(2, 2, 3), repeat=2):
            slope = norm.weight[own[1]][c] / deviation * (([c, *up] == [d, *down]) - 1 / 12)
            share = relevance[own][c, *up] / away(z[own][c, *up])
            truth[own][d, *down] += x[own][d, *down] * slope * share
    torch.testing.assert_close(propagated(nn.Sequential(norm), x, relevance), truth)


@pytest.mark.parametrize(
    "moves", [nn.Upsample(scale_factor=2), nn.ConstantPad2d((1, 0, 2, 1), 0.0)], ids=str
)
def test_what_moves_values_keeps_their_relevance(moves: nn.Module) -> None:
    x = normal(2, 3, 4, 4)
    relevance = normal(*moves(x).shape, seed=2)
    leaf = x.clone().requires_grad_()
    (truth,) = torch.autograd.grad(moves(leaf), leaf, relevance)
    torch.testing.assert_close(propagated(nn.Sequential(moves), x, relevance), truth)


def test_a_gate_gets_nothing() -> None:
    x, relevance = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=2)
    squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), layer(nn.Conv2d(3, 3, 1)), nn.Sigmoid())
    assert torch.equal(propagated(Residual(squeeze, m.Multiply()), x, relevance), relevance)
    halves = propagated(Residual(nn.ReLU(), m.Multiply()), x, relevance)
    torch.testing.assert_close(halves, relevance)


def test_a_signal_that_a_gate_spreads_gets_what_all_places_have() -> None:
    signal, gate, relevance = normal(2, 30, 1, 1), normal(2, 1, 4, 4), normal(3, 2, 30, 4, 4)
    pull = r.gate(m.Multiply(), (signal, gate), signal * gate)
    (given, nothing) = pull.down([relevance], signal * gate)
    assert nothing == []
    torch.testing.assert_close(total(given, signal), relevance.sum((3, 4), keepdim=True))
    even = normal(2, 16, 1, 1, seed=2), gate
    halves = r.gate(m.Multiply(), even, even[0] * gate).down([relevance[:, :, :16]], gate)
    for share, x in zip(halves, even, strict=True):
        truth = relevance[:, :, :16].sum_to_size(3, *x.shape) / 2
        torch.testing.assert_close(total(share, x), truth)


@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("kind", ["float", "double"])
def test_rules_equal_those_of_zennit(conv: nn.Conv2d, kind: str) -> None:
    conv = getattr(layer(conv), kind)()
    x = getattr(normal(2, conv.in_channels, 6, 5), kind)()
    relevance = torch.randn(conv(x).shape, dtype=x.dtype)
    twins = [(r.z_plus, zennit.rules.ZPlus()), (r.flat, zennit.rules.Flat())]
    for rule, twin in (*twins, (r.epsilon, zennit.rules.Epsilon())):
        leaf = x.clone().requires_grad_()
        handles = twin.register(conv)
        (truth,) = torch.autograd.grad(conv(leaf), leaf, relevance)
        handles.remove()
        torch.testing.assert_close(applied(rule, conv, (x,), relevance)[0], truth)
    conv.double()


class Deep(nn.Module):
    """Convolutions, residual, pooling, join and linear layer, all without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = layer(nn.Conv2d(3, 6, 3, padding=1, bias=False))
        self.relu, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.conv = layer(nn.Conv2d(6, 6, 3, padding=1, bias=False), seed=2)
        self.depthwise = layer(nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), seed=3)
        self.add, self.join = m.Add(), m.Concatenate(1)
        self.pool, self.mean, self.flat = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.linear = layer(nn.Linear(12, 5, bias=False), seed=4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = self.pool(self.add(self.relu2(self.conv(x)), x))
        x = self.join(x, self.relu3(self.depthwise(x)))
        return self.linear(self.flat(self.mean(x)))


@pytest.mark.parametrize("lower", [None, "below"])
def test_relevance_is_conserved_without_biases(lower: str | None) -> None:
    x = normal(3, 3, 8, 8)
    network = Deep().eval()
    seed = network(x).relu()
    found = propagated(network, x, seed, lower)
    torch.testing.assert_close(found.sum((1, 2, 3)), seed.sum(1), rtol=1e-3, atol=1e-5)
    assert found.abs().max() > 0.01


def test_nothing_is_left_on_the_modules() -> None:
    network = Deep()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    part = slice_of(network)
    propagation = Propagation(part, r.rules(part))
    propagation.forward(normal(1, 3, 8, 8))
    with pytest.raises(RuntimeError, match="size"):
        propagation.down(torch.ones(1, 1, 77).double())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    for module in part.module.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        assert not any(hooks)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 4)
        self.softmax = nn.Softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(self.project(x))


class Multiplying(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, x)


@pytest.mark.parametrize(
    ("network", "named"), [(Attending(), r"softmax \(Softmax\)"), (Multiplying(), r"\(matmul\)")]
)
def test_a_missing_rule_is_named_with_the_way_out(network: nn.Module, named: str) -> None:
    with pytest.raises(MissingRule, match=named + r".*'gradient'"):
        r.rules(slice_of(network))


def test_a_network_that_is_not_traced_has_no_rules() -> None:
    part = Slice(nn.Linear(2, 2), "a", "b", 1, False, {})
    with pytest.raises(MissingRule, match="cannot be traced"):
        r.rules(part)


def alone(rows: int, channels: int, turns: int = 3) -> tuple[Lone, Tensor]:
    """Relevance of one channel for each of some starts, and the same as whole maps."""
    channel = torch.randint(channels, (turns, rows), generator=torch.Generator().manual_seed(1))
    lone = Lone(channel, normal(turns, rows, 4, 4, seed=7))
    return lone, total([lone], torch.zeros(rows, channels, 4, 4).double())


LONELY = [
    (r.z_plus, layer(nn.Conv2d(5, 3, 1)), 1),
    (r.z_plus, layer(nn.Conv2d(5, 3, 1, bias=False)), 1),
    (r.z_plus, layer(nn.Conv2d(5, 3, 3, padding=1)), 1),
    (r.epsilon, m.Add(), 2),
    (r.pass_on, nn.ReLU(), 1),
]


@pytest.mark.parametrize(
    ("rule", "module", "count"), LONELY, ids=lambda each: getattr(each, "__name__", str(each))
)
def test_one_channel_alone_is_as_whole_maps(rule: r.Rule, module: nn.Module, count: int) -> None:
    inputs = tuple(normal(2, 5, 4, 4, seed=at).relu() for at in range(count))
    output = module(*inputs)
    lone, whole = alone(2, output.shape[1])
    pull = rule(module, inputs, output)
    truth = pull.down([whole], output)
    found = pull.down([lone], output)
    assert (pull.lone is None) == (getattr(module, "kernel_size", None) == (3, 3))
    for one, other, like in zip(found, truth, inputs, strict=True):
        torch.testing.assert_close(total(one, like), total(other, like))


def test_several_shares_of_a_value_add_up() -> None:
    lone, whole = alone(2, 5)
    like = torch.zeros(2, 5, 4, 4).double()
    torch.testing.assert_close(total([lone, whole, lone], like), 3 * whole)
    assert torch.equal(lone.of(like + 2), torch.full((3, 2, 4, 4), 2.0).double())


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize(
    "kinds", list(itertools.permutations(["maps", "lone", "product", "steps"], 3)), ids="-".join
)
def test_shares_of_every_kind_add_up(kinds: tuple[str, ...], divided: bool) -> None:
    lone, _ = alone(2, 5)
    like, by = normal(2, 5, 4, 4, seed=3), normal(2, 5, 4, 4, seed=4)
    below = normal(2, 5, 4, 4, seed=5) if divided else None
    maps, other = normal(3, 2, 5, 4, 4, seed=6), normal(3, 2, 5, 4, 4, seed=7)
    few = normal(3, 2, 5, 2, 4, seed=8)
    spread = torch.zeros_like(maps)
    spread[..., ::2, :] = few * by[..., ::2, :]
    shares: dict[str, tuple[Share, Tensor]] = {
        "maps": (maps.clone(), maps),
        "lone": (lone, total([lone], like)),
        "product": (Product(other, by, shared=True), other * by),
        "steps": (Product(few, by[..., ::2, :], steps=(2, 1)), spread),
    }
    truth = sum(shares[kind][1] for kind in kinds)
    found = total([shares[kind][0] for kind in kinds], like, below)
    torch.testing.assert_close(found, truth if below is None else truth / below)
    assert torch.equal(other, normal(3, 2, 5, 4, 4, seed=7)), "shared maps stay"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("turns", [1, 3])
def test_maps_of_relevance_lie_as_the_values_do(layout: torch.memory_format, turns: int) -> None:
    value = normal(2, 4, 6, 5).contiguous(memory_format=layout)
    channel = torch.arange(turns)[:, None].expand(turns, 2)
    for share in (
        Lone(channel, normal(turns, 2, 6, 5)),
        Product(normal(turns, 2, 4, 3, 3), steps=(2, 2)),
    ):
        assert share.alone(value).flatten(0, 1).is_contiguous(memory_format=layout)
