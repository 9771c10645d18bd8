"""Sliced attribution against the whole network, zennit on the original network, and neurons
whose making is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from tiny import LAYER, LOWER, NETWORK, WEIGHTS
from torch import Tensor, fx, nn
from zennit.canonizers import Canonizer, SequentialMergeBatchNorm
from zennit.composites import EpsilonPlusFlat
from zennit.torchvision import ResNetCanonizer

from explorer.compute import attribution
from explorer.compute.attribution import heat, relevance
from explorer.compute.propagation import Propagation
from explorer.compute.pulls import Lone, Share, total
from explorer.compute.rules import rules
from explorer.networks.graph import Network
from explorer.networks.slices import Slice
from explorer.networks.traced import Traced
from explorer.networks.zoo import load
from explorer.records import BadInput, MissingRule

SIDE = 48


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomised(model: nn.Module) -> nn.Module:
    """Batch norms, layer scales and biases that are far from doing nothing."""
    generator = torch.Generator().manual_seed(0)

    def fill(value: Tensor | None, low: float, high: float) -> None:
        if value is not None:
            value.uniform_(low, high, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                fill(module.running_mean, -0.2, 0.2)
                fill(module.running_var, 0.5, 1.5)
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                fill(module.weight, 0.5, 1.5)
                fill(module.bias, -0.2, 0.2)
            fill(getattr(module, "layer_scale", None), 0.3, 1.0)
            if getattr(module, "inplace", False):
                module.inplace = False
    return model.double().eval().requires_grad_(False)


def vgg() -> nn.Module:
    """vgg16_bn without its classifier, whose 120 million weights take seconds to draw."""
    with torch.device("meta"):
        model = torchvision.models.vgg16_bn(weights=None, init_weights=False)
    model.classifier = nn.Flatten()
    model.to_empty(device="cpu")
    for module in model.features:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model


def made(source: str) -> nn.Module:
    """A network of random weights by its name."""
    library, name = source.split(":")
    torch.manual_seed(0)
    if name == "vgg16_bn":
        return randomised(vgg())
    if library == "timm":
        return randomised(timm.create_model(name))
    more = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    return randomised(torchvision.models.get_model(name, weights=None, **more))


PAIRS = {
    "torchvision:resnet18": ("layer4", "layer4.0.relu"),
    "torchvision:resnet34": ("layer4", "layer3"),
    "torchvision:resnet50": ("layer4", "layer3"),
    "torchvision:vgg16_bn": ("features.42", "features.32"),
    "torchvision:mobilenet_v2": ("features.16.conv.1", "features.14.conv.1"),
    "torchvision:densenet121": (
        "features.denseblock4.denselayer16.relu2",
        "features.denseblock4.denselayer12.relu2",
    ),
    "torchvision:googlenet": ("inception5b", "inception5a"),
    "torchvision:convnext_tiny": ("features.7.2.block.4", "features.7.0.block.4"),
    "timm:tf_efficientnet_lite0": ("blocks.5.3.bn2", "blocks.5.1.bn2"),
    "timm:resnet50": ("layer4", "layer4.0.act2"),
    "timm:resnet26d": ("layer4", "layer3"),
    "timm:efficientnet_b0": ("blocks.5.3.bn2", "blocks.5.2.bn2"),
}
"""Upper and lower layer, with residual connections, joins or norms between or around them."""


class Watching(Propagation):
    """A pass from the pixels that keeps the lower layer's relevance."""

    def __init__(self, part: Slice, wanted: str) -> None:
        super().__init__(part, rules(part))
        self.wanted = wanted

    def through(self, node: fx.Node, shares: list[Share]) -> Sequence[list[Share]]:
        if node.target == self.wanted:
            shares = [total(shares, self._steps[node].value)]
            self.lower = shares[0][0].clone()
        return super().through(node, shares)


def full_gradient(model: nn.Module, x: Tensor, upper: str, lower: str, channel: int) -> Tensor:
    """[B,D]: gradient x activation by the original network from the pixels. The seed relu(z) for
    z is the gradient of relu(z)^2 / 2; a module called twice is taken at its first call."""
    kept: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, value: Tensor) -> None:
            kept.setdefault(path, value)

        return hook

    handles = [model.get_submodule(p).register_forward_hook(keep(p)) for p in (upper, lower)]
    model(x.clone().requires_grad_())
    for handle in handles:
        handle.remove()
    z, a = kept[upper], kept[lower]
    if isinstance(model, torchvision.models.ConvNeXt):
        z, a = z.movedim(-1, 1), a.movedim(-1, 1)
    (gradient,) = torch.autograd.grad((z[:, channel].relu() ** 2).sum() / 2, kept[lower])
    return (
        (gradient.movedim(-1, 1) if a is not kept[lower] else gradient).mul(a.detach()).sum((2, 3))
    )


def lively(part: Slice, inputs: tuple[Tensor, ...], ceiling: float | None) -> int:
    """The channel that fires most without reaching the ceiling, which stops the gradients of the
    network itself."""
    z = part.module(*inputs).detach()
    fits = z.amax((0, 2, 3)) < (ceiling or torch.inf)
    return int((z.relu().sum((0, 2, 3)) * fits).argmax())


@pytest.mark.parametrize("source", PAIRS)
def test_sliced_relevance_is_that_of_the_whole_network(source: str) -> None:
    upper, lower = PAIRS[source]
    model, x = made(source), seeded(2, 3, SIDE, SIDE)
    network = Traced(model, x[:1])
    part = network.slice(lower, upper)
    with torch.no_grad():
        inputs = network.inputs(x, part)
    channel = lively(part, inputs, network.found[upper].layer.ceiling)
    pairs = torch.full((2,), channel), torch.arange(2)
    found = relevance(part, inputs, *pairs, "gradient")
    truth = full_gradient(model, x, upper, lower, channel)
    assert truth.abs().max() > 0
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-9 * float(truth.abs().max()))
    known = {rule: attribution.known(part, inputs, rule) for rule in ("gradient", "lrp")}
    assert all(known.values()) == ("convnext" not in source), "linear layers would run again"
    again = relevance(part, inputs, *pairs, "gradient", known=known["gradient"])
    torch.testing.assert_close(again, found)

    watching = Watching(network.slice(None, upper), str(network.found[lower].node.target))
    z = watching.forward(x)
    seed = torch.zeros_like(z)
    seed[:, channel] = z[:, channel].relu()
    watching.down(seed[None])
    axes = [axis for axis in (1, 2, 3) if axis != part.lower_axis]
    truth = watching.lower.sum(axes)
    found = relevance(part, inputs, *pairs, "lrp")
    assert truth.isfinite().all()
    assert truth.abs().max() > 0
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-9 * float(truth.abs().max()))
    again = relevance(part, inputs, *pairs, "lrp", known=known["lrp"])
    torch.testing.assert_close(again, found)


def zennit_relevance(
    model: nn.Module, canonizer: Canonizer, x: Tensor, upper: str, lower: str, channel: int
) -> tuple[Tensor, Tensor]:
    """Relevance of the lower map and of the pixels by zennit on the original network. The small
    number in batch norms that zennit merged but left in place is taken out."""
    kept: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        return lambda module, given, value: kept.update({path: value})

    handles = [model.get_submodule(p).register_forward_hook(keep(p)) for p in (upper, lower)]
    x = x.clone().requires_grad_()
    with EpsilonPlusFlat(canonizers=[canonizer]).context(model) as network:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
        network(x)
        a = kept[upper]
        seed = torch.zeros_like(a)
        seed[:, channel] = a.detach()[:, channel]
        grads = torch.autograd.grad(a, (kept[lower], x), seed)
    for handle in handles:
        handle.remove()
    return grads[0], grads[1]


@pytest.mark.parametrize(
    ("source", "canonizer", "upper", "lower"),
    [
        ("torchvision:resnet18", ResNetCanonizer, "layer4", "layer3"),
        ("torchvision:resnet50", ResNetCanonizer, "layer4", "layer4.0"),
        ("torchvision:vgg16_bn", SequentialMergeBatchNorm, "features.42", "features.32"),
    ],
)
def test_lrp_is_that_of_zennit_on_the_original_network(
    source: str, canonizer: type[Canonizer], upper: str, lower: str
) -> None:
    model, x = made(source), seeded(2, 3, SIDE, SIDE)
    network = Traced(model, x[:1])
    part = network.slice(lower, upper)
    inputs = network.inputs(x, part)
    channel = lively(part, inputs, None)
    found = relevance(part, inputs, torch.full((2,), channel), torch.arange(2), "lrp")
    pixels = network.slice(None, upper)
    from_pixels = relevance(pixels, (x,), torch.full((2,), channel), torch.arange(2), "lrp")
    below, image = zennit_relevance(model, canonizer(), x, upper, lower, channel)
    for one, other in ((found, below.sum((2, 3))), (from_pixels, image.sum((2, 3)))):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8 * float(other.abs().max()))


@pytest.fixture(scope="module")
def small() -> Traced:
    """resnet18 of random weights in float64."""
    return Traced(made("torchvision:resnet18"), seeded(1, 3, SIDE, SIDE))


@pytest.mark.parametrize("rule", ["gradient", "lrp"])
@pytest.mark.parametrize("seed", ["map", "argmax"])
def test_many_pairs_per_image_equal_one_at_a_time(small: Traced, rule: str, seed: str) -> None:
    part = small.slice("layer3", "layer4")
    inputs = small.inputs(seeded(4, 3, SIDE, SIDE), part)
    rows = torch.tensor([3, 0, 3, 3, 1, 3, 0, 3, 3])
    channels = torch.tensor([5, 7, 11, 5, 9, 300, 2, 17, 4])
    found = relevance(part, inputs, channels, rows, rule, seed)
    for pair, (row, channel) in enumerate(zip(rows, channels, strict=True)):
        one = [each[row : row + 1] for each in inputs]
        alone = relevance(part, one, channel[None], torch.zeros(1, dtype=torch.long), rule, seed)
        torch.testing.assert_close(found[pair], alone[0])
    assert found.abs().sum(1).min() > 0 or seed == "map"
    nothing = torch.zeros(0, dtype=torch.long)
    assert relevance(part, inputs, nothing, nothing, rule).shape == (0, 256)


@pytest.mark.parametrize("turns", [1, 20], ids=["one neuron", "many"])
@pytest.mark.parametrize("rule", ["gradient", "lrp"])
def test_what_is_known_of_pictures_is_not_computed_again(
    small: Traced, rule: str, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = small.slice("layer3", "layer4")
    inputs = small.inputs(seeded(3, 3, SIDE, SIDE), part)
    rows = torch.tensor([0, 1, 0, 2, 0]).repeat(turns)  # the first comes down by itself
    channels = torch.arange(len(rows)) * 5
    truth = relevance(part, inputs, channels, rows, rule)
    known = attribution.known(part, inputs, rule)
    before = {name: each.clone() for name, each in known.items()}
    calls = []
    run = F.conv2d

    def watched(x: Tensor, weight: Tensor, *more: Any) -> Tensor:
        calls.append(len(weight))
        return run(x, weight, *more)

    monkeypatch.setattr(F, "conv2d", watched)
    for _ in range(2):
        found = relevance(part, inputs, channels, rows, rule, known=known)
        torch.testing.assert_close(found, truth)
    passes = 2 * 2 * (2 if rule == "lrp" else 1)
    assert len(calls) == passes
    assert max(calls) < 256, "of the last convolution, the channels that are asked for"
    assert all(torch.equal(each, before[name]) for name, each in known.items())


def test_what_is_known_holds_for_a_picture_whose_lower_map_has_another_sign() -> None:
    convolutions = [nn.Conv2d(5, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)]
    module = nn.Sequential(*convolutions).double().requires_grad_(False)
    part = Slice(fx.symbolic_trace(module), "below", "above", 1, True, {})
    x = torch.stack([seeded(5, 6, 6), seeded(5, 6, 6, seed=1).abs()])
    together = attribution.known(part, (x,), "lrp")
    for image in range(2):
        alone, one = x[image : image + 1], torch.zeros(1, dtype=torch.long)
        known = {name: each[image : image + 1] for name, each in together.items()}
        found = relevance(part, (alone,), one, one, "lrp", known=known)
        torch.testing.assert_close(found, relevance(part, (alone,), one, one, "lrp"))
        assert found.any()


def test_all_channels_of_one_image(small: Traced) -> None:
    part = small.slice("layer4.1.relu", "layer4")
    inputs = small.inputs(seeded(1, 3, SIDE, SIDE), part)
    channels = torch.arange(130)
    found = relevance(part, inputs, channels, torch.zeros_like(channels), "lrp")
    pair = relevance(part, inputs, channels[128:129], torch.zeros_like(channels[:1]), "lrp")
    torch.testing.assert_close(found[128], pair[0])


def test_a_start_at_one_position_is_the_raw_value_there(small: Traced) -> None:
    part = small.slice(None, "layer3")
    x = seeded(2, 3, SIDE, SIDE)
    z = part.module(x)
    channels, positions = torch.tensor([3, 8]), torch.tensor([5, 7])
    found = heat(part, x, channels, positions, "gradient")
    for row in range(2):
        pixels = x[row : row + 1].clone().requires_grad_()
        value = part.module(pixels)[0, channels[row]].flatten()[positions[row]]
        (gradient,) = torch.autograd.grad(value, pixels)
        torch.testing.assert_close(found[row], value.detach() * (gradient * pixels)[0].sum(0))
    highest = z.flatten(2)[torch.arange(2), channels].argmax(1)
    strongest = heat(part, x, channels, None)
    assert strongest.shape == (2, SIDE, SIDE)
    torch.testing.assert_close(strongest, heat(part, x, channels, highest))


def test_lrp_from_a_rectified_channel_is_not_negative_below_convolutions() -> None:
    network = Traced(made("torchvision:vgg16_bn"), seeded(1, 3, SIDE, SIDE))
    part = network.slice(None, "features.12")
    x = seeded(2, 3, SIDE, SIDE)
    channel = int(part.module(x).amin((0, 2, 3)).argmax())
    found = heat(part, x, torch.full((2,), channel), None)
    assert found.min() >= 0
    assert found.max() > 0


class Toy(nn.Module):
    """Four colours, and two units above: red + blue (planted), and one clipped at 6."""

    def __init__(self) -> None:
        super().__init__()
        self.colours, self.relu = nn.Conv2d(3, 4, 1, bias=False), nn.ReLU()
        self.above, self.relu6 = nn.Conv2d(4, 2, 1), nn.ReLU6()
        self.colours.weight.copy_(
            torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]])[:, :, None, None]
        )
        self.above.weight.copy_(torch.tensor([[1.0, 0, 1, 0], [9, 9, 9, 9]])[:, :, None, None])
        self.above.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu6(self.above(self.relu(self.colours(x))))


@pytest.mark.parametrize("rule", ["gradient", "lrp"])
def test_a_planted_neuron_is_told_apart(rule: str) -> None:
    with torch.no_grad():
        network = Traced(Toy().eval(), torch.rand(1, 3, 8, 8))
    part = network.slice("relu", "relu6")
    kinds = torch.tensor([0, 2, 0, 2, 2])
    x = torch.zeros(5, 3, 8, 8)
    x[torch.arange(5), kinds, 2:5, 3:6] = 1.0
    inputs = network.inputs(x, part)
    found = relevance(part, inputs, torch.zeros(5, dtype=torch.long), torch.arange(5), rule)
    assert torch.equal(found.argmax(1), kinds)
    torch.testing.assert_close(found.sum(1), torch.full((5,), 9.0), rtol=1e-4, atol=1e-4)
    assert (found > 1e-4).sum() == 5


@pytest.mark.parametrize("rule", ["gradient", "lrp"])
def test_the_ceiling_of_relu6_stops_nothing(rule: str) -> None:
    with torch.no_grad():
        network = Traced(Toy().eval(), torch.rand(1, 3, 8, 8))
    part = network.slice("relu", "relu6")
    inputs = network.inputs(torch.ones(1, 3, 8, 8), part)
    assert part.module(*inputs)[0, 1].min() > 6
    one = torch.ones(1, dtype=torch.long)
    found = relevance(part, inputs, one, one - 1, rule)
    assert found.argmax() == 3
    assert found.max() > 100


def test_what_cannot_be_asked_is_said(small: Traced) -> None:
    part = small.slice("layer3", "layer4")
    inputs = small.inputs(seeded(1, 3, SIDE, SIDE), part)
    one = torch.zeros(1, dtype=torch.long)
    with pytest.raises(BadInput, match="choose one of gradient"):
        relevance(part, inputs, one, one, "magic")
    with pytest.raises(BadInput, match="'map' or 'argmax'"):
        relevance(part, inputs, one, one, "lrp", "middle")


def test_what_only_opens_gates_gets_no_relevance() -> None:
    network = Network.build(load("timm:test_efficientnet", "random:0"))
    part = network.slice("blocks.4.0.se.act1", "blocks.4")
    inputs = network.inputs(seeded(2, 3, 160, 160).float(), part)
    pairs = torch.tensor([3, 5, 3]), torch.tensor([0, 0, 1])
    assert not relevance(part, inputs, *pairs, "lrp").any()
    assert relevance(part, inputs, *pairs, "gradient").any()


def timm_attention() -> tuple[nn.Module, str]:
    return timm.create_model("vit_tiny_patch16_224", img_size=SIDE, depth=2), "blocks.{}.mlp.act"


def torchvision_attention() -> tuple[nn.Module, str]:
    model = torchvision.models.VisionTransformer(SIDE, 16, 2, 2, hidden_dim=32, mlp_dim=64)
    return model, "encoder.layers.encoder_layer_{}.mlp.1"


@pytest.mark.parametrize("make", [timm_attention, torchvision_attention])
def test_attention_has_no_rule_but_a_gradient(make: Callable[[], tuple[nn.Module, str]]) -> None:
    torch.manual_seed(0)
    model, path = make()
    model.double().eval().requires_grad_(False)
    network, x = Traced(model, seeded(1, 3, SIDE, SIDE)), seeded(2, 3, SIDE, SIDE, seed=1)
    upper, lower = path.format(1), path.format(0)
    part = network.slice(lower, upper)
    inputs = network.inputs(x, part)
    pairs = torch.tensor([0, 0, 5]), torch.tensor([0, 1, 1])
    with pytest.raises(MissingRule, match=r"attn|self_attention"):
        relevance(part, inputs, *pairs, "lrp")
    found = relevance(part, inputs, *pairs, "gradient")
    tokens: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, given, value: tokens.update({name: value})

    for name in (upper, lower):
        model.get_submodule(name).register_forward_hook(keep(name))
    model(x.clone().requires_grad_())
    for row, channel, image in zip(found, *(each.tolist() for each in pairs), strict=True):
        z, a = tokens[upper][image, :, channel], tokens[lower]
        (gradient,) = torch.autograd.grad((z.relu() ** 2).sum() / 2, a, retain_graph=True)
        torch.testing.assert_close(row, (gradient * a)[image].sum(0).detach())
    assert found.abs().amax(1).min() > 0


@pytest.mark.parametrize("rule", ["gradient", "raising", "sensitivity"])
def test_gradients_alone_and_of_what_raises_are_those_of_the_whole_network(rule: str) -> None:
    network = Network.build(load(NETWORK, WEIGHTS))
    part = network.slice(LOWER, LAYER)
    inputs = network.inputs(seeded(3, 3, 96, 96).float(), part)
    found = relevance(part, inputs, torch.tensor([4, 4, 9]), torch.arange(3), rule)
    for row, channel in enumerate((4, 4, 9)):
        lower, *others = (each[row : row + 1].clone() for each in inputs)
        lower.requires_grad_()
        z = part.module(lower, *others)[:, channel]
        (gradient,) = torch.autograd.grad(z, lower, z.detach().relu())
        product = gradient * lower.detach()
        maps = {"gradient": product, "raising": product.relu(), "sensitivity": gradient}[rule]
        torch.testing.assert_close(found[row], maps.sum((0, 2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("turns", [1, 20], ids=["one neuron", "many"])
@pytest.mark.parametrize("rule", ["gradient", "raising", "sensitivity"])
def test_a_rectifier_may_read_a_lower_layer_of_either_sign(rule: str, turns: int) -> None:
    module = nn.Sequential(nn.ReLU(), nn.Conv2d(5, 4, 3, padding=1)).double()
    part = Slice(fx.symbolic_trace(module.requires_grad_(False)), "below", "above", 1, True, {})
    x = seeded(1, 5, 6, 6)
    channels, rows = torch.arange(turns) % 4, torch.zeros(turns, dtype=torch.long)
    found = relevance(part, (x,), channels, rows, rule)
    for channel, row in zip(channels, found, strict=True):
        lower = x.clone().requires_grad_()
        z = module(lower)[:, channel]
        (gradient,) = torch.autograd.grad(z, lower, z.detach().relu())
        product = gradient * x
        maps = {"gradient": product, "raising": product.relu(), "sensitivity": gradient}[rule]
        torch.testing.assert_close(row, maps.sum((0, 2, 3)))
    assert found.abs().max() > 0


def test_wide_maps_inside_come_down_in_fewer_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = ((3, 2), (2, 50), (50, 2))
    layers = [each for width in widths for each in (nn.Conv2d(*width, 1), nn.ReLU())]
    model = nn.Sequential(*layers).eval()
    traced = Traced(model.requires_grad_(False), seeded(1, 3, 8, 8).float())
    part = traced.slice("1", "5")
    inputs = traced.inputs(seeded(1, 3, 8, 8).float(), part)
    channels, rows = torch.arange(40) % 2, torch.zeros(40, dtype=torch.long)
    truth = relevance(part, inputs, channels, rows)
    sizes = []
    once = Propagation.down

    def watched(self: Propagation, start: Lone, last: bool = True) -> list[Share]:
        sizes.append(len(start.channel))
        return once(self, start, last)

    monkeypatch.setattr(Propagation, "down", watched)
    monkeypatch.setitem(attribution.HELD, "cpu", 10 * 50 * 64)
    found = relevance(part, inputs, channels, rows)
    assert sizes == [10, 10, 10, 10]
    torch.testing.assert_close(found, truth)
