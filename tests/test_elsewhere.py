"""On another device than the CPU everything comes out as on the CPU. There is no GPU where tests
run: ``elsewhere`` pretends that there is one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import elsewhere
import numpy as np
import pytest
import torch
from elsewhere import CUDA, Elsewhere, There, pretend
from tiny import (
    JUDGE,
    LAYER,
    LOWER,
    NETWORK,
    WEIGHTS,
    command,
    draw_pictures,
    surround,
    write_config,
)
from torch import Tensor

from explorer.compute import attribution
from explorer.compute.scan import _pooled, launch
from explorer.networks import cudnn
from explorer.networks.graph import DTYPES, Network
from explorer.networks.zoo import load
from explorer.records import PRECISIONS

CLASSES, EDITED = ("disc", "stripes"), "edited.json"
CONV = "layer4.0.conv1"
NEURON = f"{LAYER}:3"
LABELS = ("--concepts", "labels")
COMMANDS: dict[str, tuple[str, ...]] = {
    "scan": ("scan", "--layers", LAYER, LOWER),
    "scan in bf16": ("scan", "--layers", LAYER, "--precision", "bf16"),
    "relevance": ("split", NEURON, "--k", "2", "--lower", LOWER, "--attribution", "lrp"),
    "gradients": ("split", NEURON, "--k", "2", "--lower", LOWER, "--attribution", "gradient"),
    "concept vectors": ("split", NEURON, "--method", "concept_vectors", "--rank", "5"),
    "embeddings": ("split", NEURON, "--k", "2", "--method", "embedding"),
    "sweep": ("sweep", LAYER, "--channels", "0-3", "--k", "2", "--references", "12"),
    "comparison": ("evaluate", LAYER, "--neurons", "2", "--judges", JUDGE),
    "explanation": ("explain", NEURON, *LABELS, "--ablation"),
    "candidates": ("polysemantic", CONV, "--tau", "0.001", "--gamma", "1", "--least", "2"),
    "surgery": ("surgery", f"{CONV}:3", "--classes", *CLASSES, "--pictures", "12", "-o", EDITED),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    write_config(folder, draw_pictures(folder / "pictures", each=52))
    return folder


def test_tensors_on_two_devices_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    with Elsewhere():
        there, here = torch.ones(3, device=CUDA), torch.ones(3)
        assert there.device == CUDA
        assert (there + torch.tensor(1.0)).device == there[torch.tensor([0, 2])].device == CUDA
        assert torch.equal((there + here.to(there)).cpu(), 2 * here)
        for wrong in (lambda: there + here, lambda: torch.cat([here, there]), there.numpy):
            with pytest.raises((RuntimeError, TypeError)):
                wrong()


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_answer_as_on_the_cpu(
    name: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    truth = answered(name, "cpu", home, monkeypatch, capsys)
    pretend(monkeypatch)
    before = There.made
    with Elsewhere():
        found = answered(name, "cuda:0", home, monkeypatch, capsys)
    assert There.made > before
    near = partial(pytest.approx, rel=1e-3, abs=1e-4, nan_ok=True)
    assert timeless(found) == timeless(truth, about=near)


def answered(name: str, device: str, home: Path, monkeypatch: Any, capsys: Any) -> dict[str, Any]:
    """What a command answers on a device, with a cache of its own in ``home``."""
    surround(monkeypatch, home / "explorer.toml", home / device)
    monkeypatch.setenv("EXPLORER_DEVICE", device)
    return command(capsys, *COMMANDS[name])


def timeless(found: Any, about: Any = float) -> Any:
    """An answer without the seconds that it took, each number as ``about`` has it."""
    if isinstance(found, dict):
        return {k: timeless(v, about) for k, v in found.items() if "second" not in k}
    if isinstance(found, list):
        return [timeless(each, about) for each in found]
    return about(found) if isinstance(found, float) else found


PAIRS = {
    "timm:test_efficientnet": ("blocks.4", "blocks.2"),
    "timm:test_vit": ("blocks.5.mlp.act", "blocks.3.mlp.act"),
    "torchvision:mobilenet_v2": ("features.16.conv.1", "features.14.conv.1"),
}
"""Upper and lower layer, with gates, attention and depthwise convolutions between."""


def relevances(source: str, device: torch.device) -> list[Tensor]:
    """By each rule that a network knows: of pairs between two layers, and of pixels."""
    upper, lower = PAIRS[source]
    network = Network.build(load(source, "random:0"), device)
    channels, rows = torch.arange(20).repeat(2), torch.arange(2).repeat_interleave(20)
    rules = ("gradient",) if "vit" in source else ("gradient", "lrp")
    side = network.info.preprocess.crop
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    part, pixels = network.slice(lower, upper), network.slice(None, upper)
    inputs, first = network.inputs(x, part), x.to(network.device)
    pairs = [attribution.relevance(part, inputs, channels, rows, rule) for rule in rules]
    return [*pairs, *(attribution.heat(pixels, first, rows[19:21], None, r) for r in rules)]


def alike(there: Sequence[Tensor], here: Sequence[Tensor]) -> None:
    for found, each in zip(there, here, strict=True):
        assert found.device == CUDA
        close = {"rtol": 1e-3, "atol": 1e-4 * float(each.abs().max())}
        torch.testing.assert_close(found.cpu(), each, **close)


@pytest.mark.parametrize("source", PAIRS)
def test_relevance_is_that_of_the_cpu(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = relevances(source, torch.device("cpu"))
    pretend(monkeypatch)
    with Elsewhere():
        alike(relevances(source, CUDA), wanted)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_batch_of_a_scan_waits_for_the_device(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    with Elsewhere():
        network = Network.build(load(NETWORK, WEIGHTS), CUDA, precision)
        views = np.zeros((4, *[network.info.preprocess.crop] * 2, 3), np.uint8)
        launch(network, views, [LOWER, LAYER])()  # constants are moved once
        asked: list[Any] = []
        monkeypatch.setattr(elsewhere, "waits", asked.append)
        collect = launch(network, views, [LOWER, LAYER])
        assert not asked
        assert set(collect()) == {LOWER, LAYER}


@pytest.mark.parametrize("source", ["torchvision:resnet18", "torchvision:mobilenet_v2"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_convolutions_go_by_cudnn(
    source: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In single precision by maps that lie channels first; slices take them channels last."""
    here = Network.build(load(source, "random:0"), "cpu", precision)
    side = here.info.preprocess.crop
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    upper, lower = here.info.layers[-1].name, here.info.layers[-4].name
    wanted = here.features(x, [lower, upper])
    pretend(monkeypatch)
    with Elsewhere():
        there = Network.build(load(source, "random:0"), CUDA, precision)
        seen: list[tuple[bool, bool]] = []

        def convolution(module: Any, x: Tensor, other: Tensor | None, cut: bool) -> Tensor:
            made = cudnn_convolution(module, x, other, cut)
            seen.append((made.is_contiguous(), other is not None))
            return made

        cudnn_convolution = cudnn.convolution
        monkeypatch.setattr(cudnn, "convolution", convolution)
        for layer, found in there.features(x, [lower, upper]).items():
            scale = float(wanted[layer].float().abs().max())
            near = {"rtol": 0, "atol": scale * (1e-5 if precision == "float32" else 0.03)}
            torch.testing.assert_close(found.cpu(), wanted[layer], **near)
        assert len(seen) > 15
        if precision == "float32":
            assert all(first for first, _ in seen)
            assert any(added for _, added in seen)
        piece = there.slice(lower, upper)
        for each in there.inputs(x, piece):
            assert each.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("memory", [False, True])
def test_what_cudnn_cannot_do_is_done_without_it(
    memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But where it is out of memory, that is said: fewer pictures may fit."""
    asked: list[int] = []

    def refused(*_: Any) -> Tensor:
        asked.append(1)
        raise RuntimeError("CUDA error: out of memory" if memory else "No engine was found.")

    for name in ("cudnn_convolution_relu", "cudnn_convolution_add_relu"):
        monkeypatch.setattr(torch, name, refused)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    wanted = Network.build(load(NETWORK, WEIGHTS)).features(x, [LAYER])[LAYER]
    pretend(monkeypatch)
    with Elsewhere():
        network = Network.build(load(NETWORK, WEIGHTS), CUDA)
        if memory:
            with pytest.raises(RuntimeError, match="memory"):
                network.features(x, [LAYER])
            return
        found = network.features(x, [LAYER])[LAYER].cpu()
        scale = float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * scale)
        once = len(asked)
        network.features(x, [LAYER])
        assert 0 < len(asked) == once, "and not tried again"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_maxima_are_those_of_the_cpu(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.Generator().manual_seed(0)
    maps = torch.randint(-3, 4, (3, 20, 5, 7), generator=drawn).to(DTYPES[precision])
    for layout in (torch.channels_last, torch.contiguous_format):
        laid = maps.contiguous(memory_format=layout)
        truth = _pooled(laid)
        with monkeypatch.context() as patch:
            pretend(patch)
            with Elsewhere():
                found = [each.cpu() for each in _pooled(There(laid))]
        assert torch.equal(found[0], truth[0])
        assert torch.equal(found[2].long(), truth[2].long()), "the first of several"
        torch.testing.assert_close(found[1], truth[1])
