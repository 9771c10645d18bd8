"""The scan against a slow twin: one picture at a time, through the library's own network."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import LAYER, LOWER, NETWORK, WEIGHTS, draw_pictures, tiny_settings

from explorer.arrays import ScanArrays
from explorer.backend import Asker, Backend
from explorer.compute import decoding
from explorer.compute import scan as scanning
from explorer.compute.scan import scan, to_input
from explorer.images.pictures import view
from explorer.images.sets import open_set
from explorer.networks import fusing
from explorer.networks.graph import Network
from explorer.networks.zoo import load
from explorer.records import PRECISIONS, Cancelled, ImageSet, OutOfMemory, Preprocess, Scan
from explorer.session import InlineQueue

LAYERS = (LOWER, LAYER)


def silent(fraction: float, message: str) -> None:
    """Progress nobody watches."""


@pytest.fixture(scope="module")
def network() -> Network:
    return Network.build(load(NETWORK, WEIGHTS))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = draw_pictures(tmp_path_factory.mktemp("scan") / "pictures", each=14)
    (folder / "disc" / "07.png").write_bytes(b"broken")
    return open_set(str(folder), folder.parent)


def scanned(network: Network, images: ImageSet, folder: Path) -> dict[str, Scan]:
    arrays = ScanArrays(folder / "scan")
    layers = [network.info.layer(name) for name in LAYERS]
    with arrays.writer(layers, len(images)) as writer:
        scan(network, images, writer, silent)
    found = {name: arrays.read(name) for name in LAYERS}
    return {name: each for name, each in found.items() if each is not None}


def test_a_scan_equals_looking_at_one_picture_at_a_time(
    network: Network, images: ImageSet, tmp_path: Path
) -> None:
    found = scanned(network, images, tmp_path)
    model = load(NETWORK, WEIGHTS).model.eval()
    maps: dict[str, torch.Tensor] = {}
    for name in LAYERS:
        module = model.get_submodule(name)
        module.register_forward_hook(lambda _m, _i, out, name=name: maps.update({name: out}))
    for image, path in enumerate(images.paths):
        if path == "disc/07.png":
            continue
        pixels = view(images.root, path, network.info.preprocess)
        with torch.no_grad():
            model(to_input(pixels[None], network))
        for name in LAYERS:
            values = maps[name][0].flatten(1)
            each = found[name]
            assert np.allclose(each.maximum[:, image], values.amax(1), rtol=2e-3, atol=1e-4)
            assert np.allclose(each.mean[:, image], values.mean(1), rtol=2e-3, atol=1e-4)
            places = torch.from_numpy(each.position[:, image].astype(np.int64))
            at = values.gather(1, places[:, None])[:, 0]
            assert torch.allclose(at, values.amax(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bytes_do_not_depend_on_batches_or_cores(
    precision: str, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network.build(load(NETWORK, WEIGHTS), precision=precision)
    if not fusing._supported(next(network._core.network.parameters())):
        pytest.skip(f"This processor has no fused convolutions in {precision}.")
    truth = scanned(network, images, tmp_path / "truth")
    whole = torch.get_num_threads()
    for number, (batch, cores) in enumerate([(5, whole), (64, whole), (7, 1)]):
        monkeypatch.setattr(scanning, "BATCHES", dict.fromkeys(scanning.BATCHES, batch))
        torch.set_num_threads(cores)
        try:
            found = scanned(network, images, tmp_path / str(number))
        finally:
            torch.set_num_threads(whole)
        for name in LAYERS:
            for field in ("maximum", "mean", "position"):
                one, other = getattr(truth[name], field)[:], getattr(found[name], field)[:]
                assert np.array_equal(one, other), (name, field, batch, cores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [8, 16])  # by PyTorch's operators, and by machine code
@pytest.mark.parametrize("kind", ["rectified", "signed", "negative", "no numbers", "infinite"])
def test_the_highest_value_and_its_place(kind: str, channels: int, dtype: torch.dtype) -> None:
    values = torch.randn(3, channels, 5, 7, generator=torch.Generator().manual_seed(0))
    values = values.relu() if kind == "rectified" else values
    values = -values.abs() - 1 if kind == "negative" else values
    if kind == "no numbers":
        values[1, 2, 3, 3], values[2, 0, 0, 1] = float("nan"), -float("nan")
    if kind == "infinite":
        values[0, 0, 1, 2], values[0, 1] = float("inf"), -float("inf")
    values = values.to(dtype).to(memory_format=torch.channels_last)
    maximum, _, position = scanning._pooled(values)
    truth = values.float().flatten(2).max(2)
    assert torch.equal(maximum.float().nan_to_num(7e4), truth.values.nan_to_num(7e4))
    at = values.flatten(2).gather(2, position[:, :, None])[:, :, 0]
    assert torch.equal(at.nan_to_num(7e4), maximum.nan_to_num(7e4))


@pytest.mark.parametrize("channels", [8, 16])
def test_the_highest_value_among_more_places_than_a_bf16_has_bits_for(channels: int) -> None:
    values = torch.zeros(1, channels, 182, 182, dtype=torch.bfloat16)
    values = values.to(memory_format=torch.channels_last)  # where positions have the maps' type
    values[0, 3, 181, 180] = 1
    maximum, _, position = scanning._pooled(values)
    assert (maximum[0, 3], position[0, 3]) == (1, 181 * 182 + 180)


def test_a_picture_that_cannot_be_read_is_set_aside(
    network: Network, images: ImageSet, tmp_path: Path
) -> None:
    found = scanned(network, images, tmp_path)[LAYER]
    broken = images.paths.index("disc/07.png")
    assert [path for path, _ in found.skipped] == ["disc/07.png"]
    assert np.flatnonzero(~found.valid).tolist() == [broken]


def test_little_memory_makes_smaller_batches_and_the_same_scan(
    network: Network, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scanned(network, images, tmp_path / "whole")
    features = network.features

    def crowded(x: torch.Tensor, layers: Sequence[str], reduce: Any = None) -> Any:
        if len(x) > 5:
            raise torch.OutOfMemoryError("out of memory")
        return features(x, layers, reduce)

    monkeypatch.setattr(network, "features", crowded)
    parts = scanned(network, images, tmp_path / "parts")
    for name in LAYERS:
        assert np.allclose(whole[name].maximum[:], parts[name].maximum[:], rtol=2e-3, atol=1e-4)
        assert np.array_equal(whole[name].valid, parts[name].valid)


def test_bf16_finds_nearly_the_same(images: ImageSet, network: Network, tmp_path: Path) -> None:
    rounded = Network.build(load(NETWORK, WEIGHTS), precision="bf16")
    exact, found = (
        scanned(each, images, tmp_path / name)[LAYER]
        for name, each in (("exact", network), ("rounded", rounded))
    )
    both = [np.asarray(each.maximum[:], np.float32)[:, exact.valid] for each in (exact, found)]
    assert 0 < np.abs(both[0] - both[1]).max() < 0.05 * both[0].max()
    assert np.corrcoef(both[0].ravel(), both[1].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("able", [False, True])
def test_where_bf16_is_slow_the_scan_says_so(
    able: bool, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, list[str]] = {precision: [] for precision in PRECISIONS}
    for precision, messages in told.items():
        network = Network.build(load(NETWORK, WEIGHTS), precision=precision)
        layers = [network.info.layer(LAYER)]
        with ScanArrays(tmp_path / precision).writer(layers, len(images)) as writer:
            monkeypatch.setattr(scanning, "multiplies_bf16", lambda: able)
            scan(network, images, writer, lambda fraction, message, to=messages: to.append(message))
    said = {
        precision: any(scanning.SLOW in each for each in some) for precision, some in told.items()
    }
    assert said == {"float32": False, "bf16": not able}


def test_a_scan_in_bf16_is_another_scan_and_says_so(tmp_path: Path) -> None:
    exact = tiny_settings(tmp_path, draw_pictures(tmp_path / "pictures", each=3))
    (workspace,) = exact.workspaces
    rounded = replace(exact, workspaces=(replace(workspace, precision="bf16"),))
    asker, notices = Asker("ann", "here"), []
    for settings in (exact, rounded):
        backend = Backend(settings, InlineQueue(settings))
        for _ in range(4):
            backend.scan("tiny", [LAYER], asker)
        notices.append(backend.network("tiny", asker).notice)
    assert len(list((exact.cache_dir / "scans").iterdir())) == 2
    assert ["bf16" in notice for notice in notices] == [False, True]


@pytest.fixture
def slow(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A picture that does not decode as long as the test lasts."""
    path, let_go = images.paths[20], threading.Event()

    def hanging(root: str, now: str, preprocess: Preprocess) -> np.ndarray:
        if now == path:
            let_go.wait(60)
        return view(root, now, preprocess)

    monkeypatch.setattr(decoding, "view", hanging)
    monkeypatch.setattr(decoding, "GLANCE_SECONDS", 0.05)
    yield path
    let_go.set()


def test_a_scan_that_waits_for_a_picture_reports_and_can_be_stopped(
    network: Network, images: ImageSet, tmp_path: Path, slow: str
) -> None:
    told: list[str] = []

    def report(fraction: float, message: str) -> None:
        told.append(message)
        if len(told) == 3:
            raise Cancelled("Stopped.")

    layers = [network.info.layer(name) for name in LAYERS]
    arrays = ScanArrays(tmp_path / "scan")
    with pytest.raises(Cancelled), arrays.writer(layers, len(images)) as writer:
        scan(network, images, writer, report)
    assert told == ["0 of 42 pictures"] * 3
    assert not [each for each in threading.enumerate() if "decode" in each.name and not each.daemon]


def test_a_process_ends_though_a_picture_still_decodes() -> None:
    code = (
        "import threading\n"
        "from explorer.compute import decoding\n"
        "from explorer.records import Preprocess\n"
        "decoding.view = lambda *_: threading.Event().wait()\n"
        "decoding.PATIENCE_SECONDS = decoding.GLANCE_SECONDS = 0.1\n"
        "look = Preprocess(8, 8, 'bilinear', (0, 0, 0), (1, 1, 1))\n"
        "(views,) = decoding.Decoder('.', look, 4).batches(['slow.png'])\n"
        "print(views.unreadable[0][2])"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "was not decoded in" in run.stdout


def test_a_picture_that_takes_too_long_is_set_aside(
    network: Network,
    images: ImageSet,
    tmp_path: Path,
    slow: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "PATIENCE_SECONDS", 0.5)
    found = scanned(network, images, tmp_path / "slow")[LAYER]
    monkeypatch.setattr(decoding, "view", view)
    whole = scanned(network, images, tmp_path / "whole")[LAYER]
    assert {path for path, _ in found.skipped} == {slow, "disc/07.png"}
    assert "was not decoded in" in dict(found.skipped)[slow]
    others = found.valid
    assert np.allclose(found.maximum[:][:, others], whole.maximum[:][:, others], 2e-3, 1e-4)


def test_no_memory_at_all_is_one_sentence(
    network: Network, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(network, "features", full)
    with pytest.raises(OutOfMemory, match="single picture"):
        scanned(network, images, tmp_path)


def test_a_stopped_scan_goes_on_to_the_same_bytes(
    network: Network, images: ImageSet, tmp_path: Path
) -> None:
    whole = scanned(network, images, tmp_path / "whole")
    layers = [network.info.layer(name) for name in LAYERS]

    def stop(fraction: float, message: str) -> None:
        raise KeyboardInterrupt

    arrays = ScanArrays(tmp_path / "parts" / "scan")
    with pytest.raises(KeyboardInterrupt), arrays.writer(layers, len(images)) as writer:
        scan(network, images, writer, stop)
    assert 0 < arrays.progress(LAYER) < 1
    assert arrays.read(LAYER) is None
    parts = scanned(network, images, tmp_path / "parts")
    for name in LAYERS:
        for each in ("maximum", "mean", "position", "valid"):
            assert np.array_equal(getattr(whole[name], each)[:], getattr(parts[name], each)[:])
