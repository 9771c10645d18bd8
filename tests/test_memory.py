"""Memory that runs out: batches halve at every stage, and what fits nowhere is one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import (
    JUDGE,
    LAYER,
    LOWER,
    draw_pictures,
    surround,
    tiny_room,
    write_config,
)

from explorer import answers
from explorer.__main__ import main
from explorer.answers import Answers
from explorer.answers.room import Room
from explorer.compute import attribution, device
from explorer.compute.device_lab import DeviceLab
from explorer.compute.features import Features
from explorer.compute.propagation import Propagation
from explorer.images import sets
from explorer.keys import Identity, Question, job_args
from explorer.networks import weights
from explorer.networks.graph import Network
from explorer.networks.identity import identity
from explorer.records import Neuron, OutOfMemory, ReferenceQuery
from explorer.store import Store

FITS = 3
"""Pictures for which there is memory."""
NEURON, QUERY = Neuron("tiny", LAYER, 3), ReferenceQuery(count=12)


def silent(fraction: float, message: str) -> None:
    """Progress goes nowhere."""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return tiny_room(tmp_path_factory.mktemp("memory"))


@pytest.fixture
def lab(room: Room) -> Callable[[Path], DeviceLab]:
    """A Lab that remembers nothing, for a folder."""
    workspace = room.settings.workspaces[0]
    images = sets.open_set(workspace.images, room.settings.data_dir)
    who = Identity(identity(workspace.network, workspace.weights), images.digest)
    shelf = room.shelf
    return lambda path: DeviceLab(workspace, who, images, shelf, Store(path, 1.0), path)


def scan(lab: DeviceLab) -> np.ndarray:
    return np.asarray(lab.scan(LAYER, silent).maximum[:])


def relevance(lab: DeviceLab) -> np.ndarray:
    found = lab.references(NEURON, QUERY, silent)
    return lab.relevance(found, lab.network.layer(LOWER), "lrp", silent)


def heat_maps(lab: DeviceLab) -> np.ndarray:
    return lab.crops(NEURON, QUERY, silent).heat / 255


def embeddings(lab: DeviceLab) -> np.ndarray:
    return lab.embed(JUDGE, np.arange(12), None, silent)


STAGES: dict[str, tuple[Callable[[DeviceLab], np.ndarray], object, str]] = {
    "scan": (scan, Network, "features"),
    "lower maps": (relevance, Network, "inputs"),
    "relevance": (relevance, Propagation, "forward"),
    "heat maps": (heat_maps, attribution, "heat"),
    "embeddings": (embeddings, Features, "_embed"),
}
"""What is asked, and what of it meets the end of memory."""


def limit(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, most: int) -> list[int]:
    """Let no more than ``most`` pictures through a function; how many came through each time."""
    whole, passed = getattr(where, name), []

    def scarce(*args: Any, **more: Any) -> Any:
        count = len(args[1][0] if isinstance(args[1], tuple) else args[1])
        if count > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        passed.append(count)
        return whole(*args, **more)

    monkeypatch.setattr(where, name, scarce)
    return passed


@pytest.mark.parametrize("stage", STAGES)
def test_batches_halve_at_every_stage(
    lab: Callable[[Path], DeviceLab], tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, where, name = STAGES[stage]
    whole = ask(lab(tmp_path / "whole"))
    passed = limit(monkeypatch, where, name, FITS)
    np.testing.assert_allclose(ask(lab(tmp_path / "parts")), whole, rtol=5e-3, atol=1e-2)
    assert 1 <= max(passed) <= FITS
    limit(monkeypatch, where, name, 0)
    with pytest.raises(OutOfMemory, match="too little memory for a single picture"):
        ask(lab(tmp_path / "none"))


def test_what_is_not_needed_goes_back_to_the_system() -> None:
    if not Path("/proc/self/statm").exists() or device._libc() is None:
        pytest.skip("only glibc is told")
    code = (
        "import torch; from pathlib import Path; from explorer.compute import device\n"
        "def held(): return int(Path('/proc/self/statm').read_text().split()[1]) * 4096 / 2**20\n"
        "device.choose_device('cpu')\n"
        "x = [torch.ones(2**20) for _ in range(200)]\n"
        "last = torch.ones(1); del x; before = held(); device.give_back()\n"
        "print(before - held())"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert float(run.stdout) > 700


ENDED = {
    "PyTorch": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    "CUDA": RuntimeError("CUDA error: out of memory"),
    "NumPy": MemoryError("Unable to allocate 3.2 GiB for an array"),
}


@pytest.mark.parametrize("library", ENDED)
def test_whatever_fits_nowhere_is_one_sentence(
    room: Room, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    def full(*_: Any) -> None:
        raise ENDED[library]

    monkeypatch.setitem(answers.KINDS, "explanation", full)
    question = Question("explanation", room.settings.workspaces[0], NEURON.address)
    asked = job_args(question, Identity("network", "pictures"))
    with pytest.raises(OutOfMemory, match="ask for fewer pictures, neurons or concepts"):
        Answers(room.settings, room.store)("explanation", asked, silent)


def test_the_command_line_says_it_and_ends_with_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise ENDED["PyTorch"]

    pictures = draw_pictures(tmp_path / "pictures", each=2)
    surround(monkeypatch, write_config(tmp_path, pictures), tmp_path / "cache")
    monkeypatch.setitem(answers.KINDS, "scan", full)
    assert main(["scan", "--inline"]) == 2
    assert "too little memory" in capsys.readouterr().err.splitlines()[-1]


def test_weights_that_do_not_fit_are_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise ENDED["PyTorch"]

    monkeypatch.setattr(weights.torch, "load", full)
    with pytest.raises(RuntimeError, match="allocate"):
        weights.read(tmp_path / "some.pt")
