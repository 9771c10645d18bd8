"""On a CUDA device, where there is one, everything comes out as on the CPU. Without one these are
skipped, and ``test_elsewhere`` stands in for them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from elsewhere import CUDA
from test_elsewhere import COMMANDS, PAIRS, alike, answered, relevances, timeless
from tiny import NETWORK, WEIGHTS, draw_pictures, write_config

from explorer.compute.scan import _pooled, launch
from explorer.networks.graph import DTYPES, Network
from explorer.networks.zoo import load
from explorer.records import PRECISIONS

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="There is no CUDA device here."
)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_answer_as_on_the_cpu(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(tmp_path, draw_pictures(tmp_path / "pictures", each=52))
    monkeypatch.chdir(tmp_path)
    around = tmp_path, monkeypatch, capsys
    here, there = (answered(name, device, *around) for device in ("cpu", "cuda:0"))
    near = partial(pytest.approx, rel=1e-3, abs=1e-3, nan_ok=True)
    assert timeless(there) == timeless(here, about=near)


@pytest.mark.parametrize("source", PAIRS)
def test_relevance_is_that_of_the_cpu(source: str) -> None:
    alike(relevances(source, CUDA), relevances(source, torch.device("cpu")))


@pytest.mark.parametrize("source", [NETWORK, "torchvision:resnet18", "torchvision:mobilenet_v2"])
def test_a_scan_finds_what_the_cpu_finds(source: str) -> None:
    found = []
    for device in ("cpu", CUDA):
        network = Network.build(load(source, WEIGHTS), device)
        layers = [layer.name for layer in network.info.layers]
        views = np.random.default_rng(0).integers(
            0, 256, (3, *[network.info.preprocess.crop] * 2, 3), np.uint8
        )
        found.append(launch(network, views, layers)())
    here, there = found
    for layer in here:
        for one, other in zip(there[layer][:2], here[layer][:2], strict=True):
            assert np.allclose(one, other, rtol=2e-3, atol=2e-3 * np.abs(other).max())
        assert np.mean(there[layer][2] == here[layer][2]) > 0.99


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_of_equal_maxima_the_first_counts(precision: str, layout: torch.memory_format) -> None:
    drawn = torch.Generator().manual_seed(0)
    for channels, side in ((64, 56), (512, 7), (96, 13), (8, 1)):
        maps = torch.randint(-3, 4, (5, channels, side, side), generator=drawn)
        laid = maps.to(DTYPES[precision]).contiguous(memory_format=layout)
        here, there = _pooled(laid), _pooled(laid.to(CUDA))
        assert torch.equal(there[0].cpu(), here[0])
        assert torch.equal(there[2].cpu().long(), here[2].long())
