"""Sweeps by picture: the same answers as one by one, going on after an end, short of memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import LAYER, LOWER, NETWORK, WEIGHTS, tiny_room
from torch import nn

from explorer import questions
from explorer.answers.layer import sweep
from explorer.answers.room import Room
from explorer.compute import attribution, grouped
from explorer.compute.device_lab import DeviceLab
from explorer.images import sets
from explorer.keys import Identity
from explorer.networks import quick
from explorer.networks.graph import Network
from explorer.networks.identity import identity
from explorer.networks.slices import Slice
from explorer.questions import SplitQuestion
from explorer.records import (
    Cancelled,
    Layer,
    Neuron,
    OutOfMemory,
    ReferenceQuery,
    References,
    Unavailable,
)
from explorer.store import Store

CHANNELS = (3, 4, 9, 20)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return tiny_room(tmp_path_factory.mktemp("grouped"))


@pytest.fixture
def lab(room: Room, tmp_path: Path) -> DeviceLab:
    """A Lab on the tiny network that remembers nothing."""
    workspace = room.settings.workspaces[0]
    images = sets.open_set(workspace.images, room.settings.data_dir)
    who = Identity(identity(NETWORK, WEIGHTS), images.digest)
    return DeviceLab(workspace, who, images, room.shelf, Store(tmp_path, 1.0), tmp_path)


def another(lab: DeviceLab, room: Room, folder: Path) -> DeviceLab:
    """A Lab on the same that has not answered anything."""
    about = lab.workspace, lab.identity, lab.images, room.shelf
    return DeviceLab(*about, Store(folder / "other", 1.0), folder / "other")


def silent(fraction: float, message: str) -> None:
    """Progress goes nowhere."""


def references(lab: DeviceLab) -> list[References]:
    query = ReferenceQuery(count=12)
    return [lab.references(Neuron("tiny", LAYER, c), query, silent) for c in CHANNELS]


@pytest.fixture
def lower(lab: DeviceLab) -> Layer:
    return lab.network.layer(LOWER)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each batch of relevance has."""
    sizes: list[int] = []
    real = attribution.relevance

    def count(part: Slice, inputs: Sequence[torch.Tensor], *args: Any, **more: Any) -> torch.Tensor:
        sizes.append(len(inputs[0]))
        return real(part, inputs, *args, **more)

    monkeypatch.setattr(attribution, "relevance", count)
    return sizes


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many pictures each pass of the network makes lower maps."""
    sizes: list[int] = []
    real = Network.inputs

    def count(self: Network, x: torch.Tensor, part: Slice) -> tuple[torch.Tensor, ...]:
        sizes.append(len(x))
        return real(self, x, part)

    monkeypatch.setattr(Network, "inputs", count)
    return sizes


@pytest.mark.parametrize("rule", ["gradient", "lrp"])
def test_together_is_as_one_by_one(
    lab: DeviceLab, room: Room, lower: Layer, rule: str, counted: list[int], tmp_path: Path
) -> None:
    asked = references(lab)
    lab.relevances(asked, lower, rule, silent)
    pictures = len(np.unique(np.concatenate([each.index for each in asked])))
    assert sum(counted) == pictures < sum(len(each.index) for each in asked)
    together = [lab.relevance(each, lower, rule, silent) for each in asked]
    assert sum(counted) == pictures, "all was there"
    alone = another(lab, room, tmp_path)
    for each, found in zip(asked, together, strict=True):
        truth = alone.relevance(each, lower, rule, silent)
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-5 * np.abs(truth).max())
    assert not list((tmp_path / "sweeps").rglob("rows"))


@pytest.mark.parametrize("rule", ["gradient", "lrp"])
def test_of_pictures_seen_before_no_convolution_runs_forward_again(
    lab: DeviceLab,
    room: Room,
    lower: Layer,
    rule: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, *_, other = references(lab)
    other = replace(first, neuron=other.neuron)  # in the very pictures
    truth = another(lab, room, tmp_path).relevance(other, lower, rule, silent)
    ran: list[int] = []  # how many channels convolutions made
    run = nn.Conv2d.forward

    def watched(self: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        ran.append(len(self.weight))
        return run(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    monkeypatch.setattr(quick, "convolution", lambda *_: None)  # all by what is watched
    lab.relevance(first, lower, rule, silent)
    before = len(ran)
    found = lab.relevance(other, lower, rule, silent)
    assert set(ran[before:]) == {1} < set(ran[:before]), "the neuron's own channel alone"
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-5 * np.abs(truth).max())


def test_lower_maps_are_made_for_several_batches_at_a_time(
    lab: DeviceLab,
    lower: Layer,
    counted: list[int],
    made: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grouped, "PICTURES", 1)
    monkeypatch.setattr(grouped, "AHEAD", 6)
    asked = references(lab)
    lab.relevances(asked, lower, "lrp", silent)
    pictures = len(np.unique(np.concatenate([each.index for each in asked])))
    assert counted == [1] * pictures
    assert sum(made) == pictures
    assert set(made[:-1]) == {6}


def test_memory_is_given_back_now_and_then(
    lab: DeviceLab, lower: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(grouped, "give_back", lambda: given.append(1))
    monkeypatch.setattr(grouped, "PICTURES", 1)
    monkeypatch.setattr(grouped, "TIDY", 4)
    asked = references(lab)
    lab.relevances(asked, lower, "lrp", silent)
    pictures = len(np.unique(np.concatenate([each.index for each in asked])))
    assert len(given) == pictures // 5


def test_it_goes_on_where_it_ended(
    lab: DeviceLab, lower: Layer, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped, "PICTURES", 4)
    asked = references(lab)

    def stopping(fraction: float, message: str) -> None:
        if len(counted) == 3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        lab.relevances(asked, lower, "lrp", stopping)
    assert counted == [4, 4, 4]
    lab.relevances(asked, lower, "lrp", silent)
    pictures = len(np.unique(np.concatenate([each.index for each in asked])))
    assert sum(counted) == pictures


def test_a_kill_costs_what_was_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = np.arange(6)
    killed = grouped.Ledger(tmp_path / "work", "one", 2, 3)
    monkeypatch.setattr(grouped, "NOTE_SECONDS", 0.0)
    killed.write(np.array([0]), pairs[:2], np.ones((2, 2)))
    killed._settle()
    monkeypatch.setattr(grouped, "NOTE_SECONDS", 60.0)
    killed.write(np.array([2]), pairs[2:4], np.ones((2, 2)))
    again = grouped.Ledger(tmp_path / "work", "one", 2, 3)
    assert again.done.tolist() == [True, False, False]
    assert again.read(0, 2).tolist() == [[1, 1], [1, 1]]
    other = grouped.Ledger(tmp_path / "work", "another", 2, 3)
    assert not other.done.any()
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["another"]


def test_a_full_disk_is_told_though_notes_are_made_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(grouped, "NOTE_SECONDS", 0.0)

    def work() -> None:
        with grouped.Ledger(tmp_path, "one", 2, 3) as ledger:
            monkeypatch.setattr(os, "fsync", full)
            ledger.write(np.array([0]), np.arange(2), np.ones((2, 2)))
            ledger.write(np.array([1]), np.arange(2, 4), np.ones((2, 2)))

    with pytest.raises(Unavailable, match="full"):
        work()


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Memory for so many pictures at once and no more, in the forward pass of a slice."""
    from explorer.compute.propagation import Propagation

    once = Propagation.forward

    def limit(pictures: int) -> None:
        def forward(self: Propagation, *inputs: torch.Tensor, **more: Any) -> torch.Tensor:
            if len(inputs[0]) > pictures:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return once(self, *inputs, **more)

        monkeypatch.setattr(Propagation, "forward", forward)

    return limit


def test_batches_halve_where_memory_is_short(
    lab: DeviceLab, lower: Layer, counted: list[int], scarce: Callable[[int], None]
) -> None:
    asked = references(lab)
    scarce(2)
    lab.relevances(asked, lower, "lrp", silent)
    assert max(counted) > 2
    assert lab.relevance(asked[0], lower, "lrp", silent).any()


def test_neurons_that_cite_one_picture_halve_too(
    lab: DeviceLab, lower: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    relevance, asked = grouped.attributing(lab.model, lab.maps, (lower.name, LAYER), "lrp"), []

    def scarce(pictures: np.ndarray, channels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        asked.append((len(pictures), len(channels)))
        if len(channels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return relevance(pictures, channels, rows)

    task = (np.array([2, 5]), np.arange(12), np.repeat([0, 1], 6))

    def idle(*_: Any) -> None:
        """Nothing to do meanwhile."""

    (whole,), (parts,) = (grouped.here(each, idle)([task], idle) for each in (relevance, scarce))
    np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-6)
    assert asked == [(2, 12), (1, 6), (1, 3), (1, 3), (1, 6), (1, 3), (1, 3)]


def test_memory_for_not_one_picture_is_said_in_a_sentence(
    lab: DeviceLab, lower: Layer, scarce: Callable[[int], None]
) -> None:
    scarce(0)
    with pytest.raises(OutOfMemory, match="a single picture"):
        lab.relevances(references(lab), lower, "lrp", silent)


def test_pictures_of_equally_many_pairs_go_together() -> None:
    query = ReferenceQuery(count=5)
    cited = [[0, 1, 2], [1, 2], [2, 7]]
    asked = [
        References(
            Neuron("w", "l", n),
            query,
            np.array(i),
            np.ones(len(i), np.float32),
            np.zeros(len(i), int),
        )
        for n, i in enumerate(cited)
    ]
    pairs = grouped.Pairs(asked)
    assert pairs.picture.tolist() == [0, 1, 2, 7]
    order = np.concatenate(list(pairs.batches(np.zeros(4, bool))))
    assert order.tolist() == [2, 1, 0, 3]
    chosen = pairs.of(order)
    assert sorted(chosen.tolist()) == list(range(7))
    assert pairs.picture[pairs.row[chosen]].tolist() == [2, 2, 2, 1, 1, 0, 7]
    assert list(pairs.batches(np.ones(4, bool))) == []


def test_a_gpu_takes_more_pairs_at_once() -> None:
    query, cited = ReferenceQuery(count=40), np.arange(40)
    about = query, cited, np.ones(40, np.float32), np.zeros(40, int)
    pairs = grouped.Pairs([References(Neuron("w", "l", n), *about) for n in range(30)])
    for device, sizes in (("cpu", [4] * 10), ("cuda", [32, 8])):
        found = list(pairs.batches(np.zeros(40, bool), device))
        assert [len(each) for each in found] == sizes
        assert np.concatenate(found).tolist() == cited.tolist()


def test_the_progress_of_a_sweep_only_grows(room: Room, lab: DeviceLab) -> None:
    told: list[float] = []
    split = SplitQuestion(
        Neuron("tiny", LAYER, 0), "pure", {"k": 2, "lower": LOWER}, ReferenceQuery(count=12)
    )
    question = questions.sweep(lab.workspace, split, lab.network.layer(LAYER), (40, 43))
    lab.scan(LAYER, silent)
    room._labs = {lab.identity: lab}
    found = sweep(room, question, lab.identity, lambda fraction, message: told.append(fraction))
    assert found.k.tolist() == [2, 2, 2, 2]
    assert told == sorted(told)
    assert told[0] <= 0.9 <= told[-1] < 1
