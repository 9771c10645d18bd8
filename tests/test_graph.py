"""Canonical networks compute what the originals compute, and so do their slices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explorer.compute import attribution
from explorer.compute.rules import rules
from explorer.networks import modules as m
from explorer.networks.canonise import canonise
from explorer.networks.graph import UNTRACED, Network
from explorer.networks.traced import Traced
from explorer.networks.zoo import Loaded, load
from explorer.records import BadInput, MissingRule, Preprocess

SIDE = 64
ARCHITECTURES = {
    "torchvision:resnet18": "layer4",
    "torchvision:resnet34": "layer4",
    "torchvision:resnet50": "layer4",
    "torchvision:vgg16_bn": "features.42",
    "torchvision:mobilenet_v2": "features.16.conv.1",
    "torchvision:densenet121": "relu",
    "torchvision:googlenet": "inception5b",
    "torchvision:convnext_tiny": "features.7.2.block.4",
    "timm:tf_efficientnet_lite0": "blocks.5.3.bn2",
    "timm:resnet50": "layer4",
    "timm:resnet26d": "layer4",
}
"""Networks that must work, with the layer where browsing starts."""


def shaken(model: nn.Module) -> nn.Module:
    """Give batch norms statistics of their own, so that folding them wrongly would show."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
            ):
                tensor.uniform_(low, high, generator=generator)
    return model


def small(source: str) -> Loaded:
    loaded = load(source, "random")
    shaken(loaded.model)
    return replace(loaded, preprocess=replace(loaded.preprocess, crop=SIDE))


def pictures(count: int = 2) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


def plain(model: nn.Module, side: int = 16) -> Loaded:
    """A network of a test's own."""
    view = Preprocess(side, side, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Loaded("test:net", "random", model.eval(), view, (), "0", "")


def error(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).abs().max() / truth.abs().max().clamp_min(1e-9))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def built(request: pytest.FixtureRequest) -> tuple[str, Tensor, Network]:
    """(its name, the original's logits, the network), one architecture at a time."""
    loaded = small(request.param)
    with torch.no_grad():
        truth = loaded.model(pictures())
    return request.param, truth, Network.build(loaded)


def test_the_canonical_form_computes_the_same(built: tuple[str, Tensor, Network]) -> None:
    _, truth, network = built
    assert network.traced
    assert network.info.notice.startswith("These weights are random")
    assert error(network.logits(pictures()), truth) < 1e-5


def test_every_operation_is_a_module_of_its_own(built: tuple[str, Tensor, Network]) -> None:
    name, _, network = built
    layer = network.info.default_layer
    part = network.slice(None, layer)
    calls = [n.target for n in part.module.graph.nodes if n.op == "call_module"]
    assert len(set(calls)) == len(calls) == len(part.paths)
    assert len(rules(part)) >= len(calls), "each has a rule"
    kinds = [type(module) for module in part.module.modules()]
    assert nn.BatchNorm2d not in kinds or "densenet" in name
    assert not any(getattr(module, "inplace", False) for module in part.module.modules())
    assert not {nn.Dropout, nn.Identity} & set(kinds)


def test_layers_have_the_shapes_they_state(built: tuple[str, Tensor, Network]) -> None:
    name, truth, network = built
    info = network.info
    assert info.default_layer == ARCHITECTURES[name]
    names = [layer.name for layer in info.layers]
    assert len(set(names)) == len(names)
    maps = network.features(pictures(), names)
    for layer in info.layers:
        assert maps[layer.name].shape == (2, layer.channels, layer.height, layer.width)
        assert set(layer.lowers) <= set(names[: names.index(layer.name)])
        assert layer.lower in ("", *(n for n in layer.lowers if info.layer(n).rectified))
    last = info.layers[-1]
    assert (last.channels, last.height, last.width) == (1000, 1, 1)
    assert error(maps[last.name].flatten(1), truth) < 1e-5


def test_slices_give_what_the_whole_network_gives(built: tuple[str, Tensor, Network]) -> None:
    _, _, network = built
    x = pictures()
    layers = [layer for layer in network.info.layers if layer.lower]
    uppers = [network.info.layer(network.info.default_layer), *layers[:: len(layers) // 3]]
    whole = network.features(x, [layer.name for layer in uppers])
    for upper in uppers:
        for lower in {None, upper.lower, upper.lowers[len(upper.lowers) // 2]}:
            part = network.slice(lower, upper.name)
            assert part is network.slice(lower, upper.name)
            inputs = network.inputs(x, part)
            z = part.module(*inputs)
            assert error(z.relu(), whole[upper.name].relu()) < 1e-5
            channels = 3 if lower is None else network.info.layer(lower).channels
            assert inputs[0].shape[part.lower_axis] == channels


class Constant(nn.Module):
    """A map that does not depend on the picture, as some attention's bias by place, is added to
    the second of three that do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(i, 4, 3) for i in (3, 4, 4))
        self.made, self.head = nn.Sequential(nn.Linear(2, 4), nn.ReLU()), nn.Linear(4, 5)
        self.register_buffer("places", torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()) + self.made(self.places)[None, :, None, None]
        return self.head(self.third(x.relu()).relu().mean((2, 3)))


class Windows(nn.Module):
    """Windows of a map lie on the first axis, four to a picture, and pass a later layer by."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(i, 4, 1) for i in (3, 4, 4))
        self.apart, self.head = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 5)

    def windows(self, x: Tensor) -> Tensor:
        parts = x.reshape(-1, 4, 2, 8, 2, 8).permute(0, 2, 4, 3, 5, 1)
        return parts.reshape(-1, 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        parts = self.apart(self.windows(x))
        parts = self.windows(self.second(x).relu()) + parts
        x = parts.reshape(-1, 2, 2, 8, 8, 4).permute(0, 5, 1, 3, 2, 4).reshape(-1, 4, 16, 16)
        return self.head(self.third(x).relu().mean((2, 3)))


def test_what_enters_a_slice_has_pictures_on_its_first_axis() -> None:
    network, x = Network.build(plain(Windows())), torch.randn(3, 3, 16, 16)
    assert network.traced
    _, lower, upper, _ = (layer.name for layer in network.info.layers)
    part = network.slice(lower, upper)
    inputs = network.inputs(x, part)
    assert [len(each) for each in inputs] == [3] * len(inputs)
    some = part.module(*(each[1:] for each in inputs))
    assert error(some.relu(), network.features(x, [upper])[upper][1:].relu()) < 1e-5


def test_one_number_may_enter_a_slice() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.head = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            scale = x.std()
            return self.head(self.second(self.first(x).relu() * scale).relu().mean((2, 3)))

    network, x = Network.build(plain(Scaled())), torch.randn(1, 3, 16, 16)
    lower, upper, _ = (layer.name for layer in network.info.layers)
    part = network.slice(lower, upper)
    whole = network.features(x, [upper])[upper]
    assert error(part.module(*network.inputs(x, part)).relu(), whole.relu()) < 1e-5


def test_kernels_of_three_axes_are_no_obstacle() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.deep, self.head = (
                nn.Conv2d(3, 4, 3),
                nn.Conv3d(1, 2, 3),
                nn.Linear(4, 5),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.flat(x).relu()
            return (
                self.head(x.mean((2, 3))) + self.deep(x[:, None]).relu().mean((1, 2, 3, 4))[:, None]
            )

    network, x = Network.build(plain(Deep())), torch.randn(2, 3, 16, 16)
    assert network.traced
    assert network.logits(x).shape == (2, 5)


def test_what_depends_on_no_picture_is_made_inside_a_slice() -> None:
    network = Network.build(plain(Constant()))
    first, *_, last = (layer.name for layer in network.info.layers if layer.height > 1)
    assert "made.1" not in [layer.name for layer in network.info.layers], "no map of pictures"
    part, x = network.slice(first, last), torch.randn(3, 3, 16, 16)
    (lower,) = network.inputs(x, part)
    assert len(lower) == 3
    whole = network.features(x, [last])[last]
    assert error(part.module(lower).relu(), whole.relu()) < 1e-5


def test_gradients_of_a_slice_are_those_of_the_whole(built: tuple[str, Tensor, Network]) -> None:
    """The gradient at the lower map, found in the slice and through a pass from the pixels."""
    _, _, network = built
    upper = network.info.layer(network.info.default_layer)
    part, whole = network.slice(upper.lower, upper.name), network.slice(None, upper.name)
    x = pictures(1)
    lower, *frontier = network.inputs(x, part)
    lower.requires_grad_()
    z = part.module(lower, *frontier)
    (found,) = torch.autograd.grad(z.relu().square().sum(), lower)
    assert found.shape == lower.shape
    path = {p: n for n, p in whole.paths.items()}
    place = next(path[p] for p in reversed(_paths(network, upper.lower)) if p in path)
    kept: list[Tensor] = []
    handle = whole.module.get_submodule(place).register_forward_hook(
        lambda module, given, made: kept.append(made) or made.retain_grad()
    )
    whole.module(x.requires_grad_()).relu().square().sum().backward()
    handle.remove()
    assert error(found, kept[0].grad) < 1e-4


def _paths(network: Network, layer: str) -> list[str]:
    """The module path of the call that makes a layer."""
    core = network._core
    assert isinstance(core, Traced)
    return [core.found[layer].node.meta["path"]]


@pytest.fixture(scope="module")
def lite() -> tuple[Loaded, Network]:
    loaded = small("timm:tf_efficientnet_lite0")
    return loaded, Network.build(loaded)


def test_names_are_those_of_the_modules(lite: tuple[Loaded, Network]) -> None:
    network = lite[1]
    names = {layer.name: layer for layer in network.info.layers}
    for name in ("bn1", "blocks.5.3.bn1", "blocks.5.3.bn2", "bn2"):
        assert names[name].rectified
        assert names[name].ceiling == 6
    for name in ("blocks.3", "blocks.4", "blocks.5", "blocks.6", "classifier"):
        assert not names[name].rectified
        assert names[name].ceiling is None
    assert "blocks" not in names
    assert network.resolve("blocks.5.3") == "blocks.5"
    assert network.resolve("blocks.5.3.add") == "blocks.5"
    with pytest.raises(BadInput, match=r"did you mean .*blocks\.5\.3\.bn2"):
        network.resolve("blocks.5.3.bn")


def test_a_depthwise_layer_is_never_attributed_to_its_own_input(
    lite: tuple[Loaded, Network],
) -> None:
    layer = lite[1].info.layer("blocks.5.3.bn2")
    assert layer.lower == "blocks.5.2.bn2"
    assert layer.lowers[:3] == ("blocks.5.2", "blocks.5.2.bn2", "blocks.5.2.bn1")
    assert "blocks.5.3.bn1" not in layer.lowers
    assert lite[1].info.layer("blocks.5").lowers[0] == "blocks.5.3.bn2"
    assert lite[1].info.layer("bn1").lowers == ()


def test_the_default_lower_layer_feeds_every_channel() -> None:
    dense = Network.build(small("torchvision:densenet121")).info
    assert dense.layer("relu").lower == "features.transition3.relu"
    assert dense.layer("relu").lowers[0] == "features.denseblock4.denselayer16.relu2"
    inception = Network.build(small("torchvision:googlenet")).info
    assert inception.layer("inception5b").lower == "inception5a"
    assert inception.layer("inception5b.branch2").lower == "inception5b.branch2.0"


def test_layers_inside_gates_are_no_default_lower_layer() -> None:
    info = Network.build(small("torchvision:efficientnet_b0")).info
    assert info.default_layer == "features.6.3.block.1"
    assert info.layer("features.6").lower == "features.6.3.block.1"
    assert info.layer("features.6").lowers[0] == "features.6.3.block.2.activation"


def test_tokens_have_their_channels_last() -> None:
    loaded = replace(load("timm:test_vit", "random"))
    network = Network.build(loaded)
    assert network.traced
    layer = network.info.layer(network.info.default_layer)
    assert layer.name.endswith("mlp.act")
    x = torch.randn(2, 3, 160, 160)
    part = network.slice(layer.lower, layer.name)
    inputs = network.inputs(x, part)
    assert inputs[0].shape[part.lower_axis] == network.info.layer(layer.lower).channels
    assert part.module(*inputs).shape == (2, layer.channels, layer.height, layer.width)
    with pytest.raises(MissingRule, match="scaled_dot_product_attention"):
        rules(part)


def test_clipped_layers_are_browsed_unclipped(lite: tuple[Loaded, Network]) -> None:
    loaded, network = lite
    x = 4 * pictures()
    block = loaded.model.blocks[2][1]
    kept: dict[str, Tensor] = {}
    handles = [
        block.conv_dw.register_forward_hook(lambda _, i, o: kept.__setitem__("conv", o.clone())),
        block.bn2.register_forward_hook(lambda _, i, o: kept.__setitem__("clipped", o.clone())),
    ]
    with torch.no_grad():
        loaded.model(x)
    for handle in handles:
        handle.remove()
    norm = block.bn2
    truth = nn.functional.batch_norm(
        kept["conv"], norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    ).relu()
    assert truth.max() > 6
    assert error(network.features(x, ["blocks.2.1.bn2"])["blocks.2.1.bn2"], truth) < 1e-5
    part = network.slice("blocks.2.1.bn2", "blocks.3.0.bn1")
    assert error(network.inputs(x, part)[0], kept["clipped"]) < 1e-5


def test_maps_are_reduced_on_the_way(lite: tuple[Loaded, Network]) -> None:
    network = lite[1]
    layers = ["blocks.5.3.bn2", "bn2", "blocks.5.3"]
    whole = network.features(pictures(), layers)
    reduced = network.features(pictures(), layers, lambda x: (x.amax((2, 3)), x.mean((2, 3))))
    assert list(reduced) == layers
    for layer in layers:
        assert torch.equal(reduced[layer][0], whole[layer].amax((2, 3)))


def test_residual_connections_around_the_lower_layer_enter_a_slice(
    lite: tuple[Loaded, Network],
) -> None:
    network = lite[1]
    part = network.slice("blocks.5.2.bn2", "blocks.5.3.bn2")
    lower, skip = network.inputs(pictures(), part)
    assert lower.shape[1] == 1152
    assert error(skip, network.features(pictures(), ["blocks.5.1"])["blocks.5.1"]) < 1e-6
    with pytest.raises(BadInput, match="Nothing leads"):
        network.slice("blocks.5.3.bn2", "blocks.5.2.bn2")


def test_a_slice_can_be_changed_without_harm(lite: tuple[Loaded, Network]) -> None:
    network = lite[1]
    before = network.logits(pictures())
    for module in network.slice("bn2", "classifier").module.children():
        module.forward = None
    assert torch.equal(network.logits(pictures()), before)


class Residual(nn.Module):
    """Shared activation, functional calls, in-place sums, constants, a gate and a dead branch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8, eps=0.1)
        self.relu = nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.drop = nn.Dropout(0.5)
        self.dead = nn.Linear(8, 2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        y = self.norm(self.second(x))
        y = y * self.scale + 0.25
        y *= torch.sigmoid(y.mean((2, 3), keepdim=True))
        self.dead(x.mean((2, 3)))
        x = x + y
        x += 1
        x = self.relu(x - 0.5)
        x = nn.functional.max_pool2d(x, 2, 2)
        x = torch.cat([x, nn.functional.avg_pool2d(x, 3, 1, 1) / 2], 1)
        x = nn.functional.adaptive_avg_pool2d(x, 1)
        return self.head(self.drop(x.view(x.size(0), -1)))


def test_functions_become_modules() -> None:
    torch.manual_seed(0)
    model = shaken(Residual()).eval()
    x = torch.randn(2, 3, 16, 16)
    network = canonise(model, x)
    with torch.no_grad():
        assert error(network(x), model(x)) < 1e-6
    kinds = [type(module) for module in network.children()]
    for kind in (m.Add, m.Multiply, m.Concatenate, m.Scale, m.Shift, m.Mean, nn.Sigmoid):
        assert kind in kinds
    assert kinds.count(nn.ReLU) == 2
    assert kinds.count(nn.Linear) == 1
    assert nn.BatchNorm2d not in kinds
    assert model.second.bias is None


class Unusual(nn.Module):
    """Operations of few networks: weights standardised as they are used, group norm, pooling less
    what was pooled, a gate that is expanded, a side that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.first.weight
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std()
        x = F.relu(F.conv2d(x, weight, self.first.bias, 1, "same"))
        x = F.group_norm(x, 2)
        x = x + (F.avg_pool2d(x, 3, 1, 1) - x)
        gate = torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = x * gate.expand_as(x)
        side = x.shape[2] * 2
        x = F.relu(self.last(F.interpolate(x, (side, side))))
        return self.head(x.mean((2, 3)))


def test_unusual_operations_have_rules_too() -> None:
    torch.manual_seed(0)
    model, x = Unusual().eval().requires_grad_(False), pictures()
    network = canonise(model, x[:1])
    assert error(network(x), model(x)) < 1e-6
    assert "expand_as" not in [node.target for node in network.graph.nodes]
    traced = Traced(model, x[:1])
    part = traced.slice("relu", "relu_1")
    ruled = {node.name: rule.__name__ for node, rule in rules(part).items() if rule}
    assert list(ruled.values()) == [
        *("group_norm", "epsilon", "pass_on", "epsilon", "epsilon"),  # to what pooling adds
        *("epsilon", "z_plus", "pass_on", "gate", "z_plus"),
    ]
    pairs = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1])
    found = attribution.relevance(part, traced.inputs(x, part), *pairs, "lrp")
    assert found.isfinite().all()
    assert found.any()


def test_a_call_used_twice_shares_weights_but_no_module() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x).relu()).mean((2, 3))

    network = canonise(Twice().eval(), torch.randn(1, 3, 4, 4))
    first, second = (c for c in network.children() if isinstance(c, nn.Conv2d))
    assert first is not second
    assert first.weight is second.weight


class Winding(nn.Module):
    """Control flow that depends on values: no tracing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU6(True))
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.relu = nn.ReLU(inplace=True)
        self.wide = nn.Conv2d(6, 9, 1)
        self.head = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(10 * x)
        x = self.relu(self.deep(x))
        if x.sum() > -1:
            x = self.relu(self.wide(x))
        return self.head(x.mean((2, 3)))


def test_an_untraceable_network_is_answered_by_hooks() -> None:
    torch.manual_seed(0)
    model = Winding().eval()
    network = Network.build(plain(model))
    assert not network.traced
    assert network.info.notice == UNTRACED
    layers = {layer.name: layer for layer in network.info.layers}
    assert list(layers) == ["first", "relu", "relu_1", "head"]
    assert layers["relu"].lowers == ()
    assert layers["relu_1"].lowers == ("relu", "first")
    assert (layers["relu_1"].channels, layers["relu_1"].lower) == (9, "relu")
    x = torch.randn(2, 3, 16, 16)
    maps = network.features(x, ["first.2", "relu_1", "head"])
    with torch.no_grad():
        first = model.first[1](model.first[0](10 * x)).relu()
        assert first.max() > 6
        second = model.deep(first.clamp(max=6)).relu()
        third = model.wide(second)
        assert torch.allclose(maps["first.2"], first, atol=1e-6)
        assert torch.allclose(maps["relu_1"], third.relu(), atol=1e-6)
        assert torch.allclose(maps["head"].flatten(1), network.logits(x))
    part = network.slice("relu", "relu_1")
    assert not part.traced
    lower, pixels = network.inputs(x, part)
    lower.requires_grad_()
    z = part.module(lower, pixels)
    assert torch.allclose(z, third, atol=1e-6)
    (found,) = torch.autograd.grad(z[:, 2].sum(), lower)
    assert torch.allclose(found, model.wide.weight[2].expand_as(found))
    with pytest.raises(BadInput, match="Nothing leads"):
        network.slice("first", "relu")


def test_an_untraceable_network_has_relevance_of_layers_and_pixels() -> None:
    torch.manual_seed(0)
    network, x = Network.build(plain(Winding().eval())), torch.randn(2, 3, 16, 16)
    channels = torch.tensor([2, 5])
    for lower in ("first", None):
        part = network.slice(lower, "relu_1")
        inputs = network.inputs(x, part)
        leaf = inputs[0].clone().requires_grad_()
        z = part.module(leaf, *inputs[1:])[torch.arange(2), channels]
        (gradient,) = torch.autograd.grad(z, leaf, z.detach().relu())
        found = attribution.relevance(part, inputs, channels, torch.arange(2), "gradient")
        assert error(found, (gradient * leaf).sum((2, 3)).detach()) < 1e-5
        with pytest.raises(MissingRule, match="cannot be traced"):
            attribution.relevance(part, inputs, channels, torch.arange(2), "lrp")
    whole = network.slice(None, "relu_1")
    assert attribution.heat(whole, x, channels, None, "gradient").abs().amax((1, 2)).min() > 0


def test_a_network_without_a_tensor_of_scores_is_refused() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.conv(x), x

    with pytest.raises(BadInput, match="class scores"):
        Network.build(plain(Two()))
