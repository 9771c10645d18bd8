"""Lower maps: made once, the same from memory, from disk and anew, and no cause of failure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer.compute import attribution, lower_maps
from explorer.compute.lower_maps import LowerMaps, packed, unpacked
from explorer.compute.propagation import Known
from explorer.networks.graph import Network
from explorer.networks.slices import Slice
from explorer.networks.zoo import load
from explorer.records import Unavailable
from explorer.store import Store


@pytest.fixture(scope="module")
def network() -> Network:
    return Network.build(load("timm:test_resnet", "random:0"))


@pytest.fixture
def piece(network: Network) -> Slice:
    return network.slice("layer3", "layer4")


class Pictures:
    """Random pictures, and how many were decoded."""

    def __init__(self) -> None:
        self.decoded = 0

    def __call__(self, index: np.ndarray) -> torch.Tensor:
        self.decoded += len(index)
        drawn = [
            torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(int(i))) for i in index
        ]
        return torch.stack(drawn).to(memory_format=torch.channels_last)


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], tuple[LowerMaps, Pictures]]:
    def make() -> tuple[LowerMaps, Pictures]:
        pictures = Pictures()
        return LowerMaps(pictures, Store(tmp_path, 1.0), "network"), pictures

    return make


INDEX = np.array([3, 1, 3, 7])


def test_maps_are_the_same_from_memory_and_disk(
    network: Network,
    piece: Slice,
    fresh: Callable[[], tuple[LowerMaps, Pictures]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lower_maps, "WORTH", 0.0)
    maps, pictures = fresh()
    made = maps.of(network, piece, INDEX)
    assert pictures.decoded == 3
    again = maps.of(network, piece, INDEX[::-1].copy())
    other, others = fresh()
    read = other.of(network, piece, INDEX)
    assert (pictures.decoded, others.decoded) == (3, 0)
    for one, two, three in zip(made, again, read, strict=True):
        assert torch.equal(one, two.flip(0))
        assert torch.equal(one, three)
        assert one.stride() == three.stride(), "or convolutions would round otherwise"


@pytest.mark.parametrize("among", [4, 0])
def test_what_is_quicker_made_or_used_once_does_not_go_to_disk(
    network: Network,
    piece: Slice,
    fresh: Callable[[], tuple[LowerMaps, Pictures]],
    monkeypatch: pytest.MonkeyPatch,
    among: int,
) -> None:
    monkeypatch.setattr(lower_maps, "WORTH", float("inf") if among else 0.0)
    fresh()[0].of(network, piece, INDEX, among)
    other, others = fresh()
    other.of(network, piece, INDEX)
    assert others.decoded == (2 if among else 3), "one is stored to be measured"


@pytest.mark.parametrize("room", [True, False])
def test_maps_of_more_pictures_than_there_is_room_for_do_not_go_to_disk(
    network: Network,
    piece: Slice,
    fresh: Callable[[], tuple[LowerMaps, Pictures]],
    monkeypatch: pytest.MonkeyPatch,
    room: bool,
) -> None:
    monkeypatch.setattr(lower_maps, "WORTH", 0.0)
    size = sum(each[0].nbytes for each in fresh()[0].of(network, piece, INDEX[:1], 0))
    monkeypatch.setattr(lower_maps, "DISK_GB", (100 if room else 99) * size / 2**30)
    fresh()[0].of(network, piece, INDEX, 100)
    other, others = fresh()
    other.of(network, piece, INDEX)
    assert others.decoded == (0 if room else 3)


def test_a_full_disk_costs_time_only(
    network: Network,
    piece: Slice,
    fresh: Callable[[], tuple[LowerMaps, Pictures]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object) -> None:
        raise Unavailable("The disk is full.")

    monkeypatch.setattr(Store, "put_bytes", full)
    with caplog.at_level(logging.WARNING):
        assert len(fresh()[0].of(network, piece, INDEX)[0]) == 4
    assert len(caplog.records) == 1


def test_packed_maps_keep_values_and_order() -> None:
    maps = {
        "wide": torch.randn(1, 3, 4, 5).to(memory_format=torch.channels_last),
        "flat": torch.randn(1, 7),
        "wide.below": torch.randn(1, 2, 1, 1),
    }
    back = unpacked(packed(maps), torch.device("cpu"))
    assert back.keys() == maps.keys()
    assert all(torch.equal(each, back[name]) for name, each in maps.items())
    assert back["wide"].is_contiguous(memory_format=torch.channels_last)


def known(maps: LowerMaps, network: Network, piece: Slice, index: np.ndarray, among: int) -> Known:
    """What is known of pictures on the way down by LRP."""
    inputs = maps.of(network, piece, index)
    return maps.known(network, piece, "lrp", index, inputs, among)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many pictures it was computed what is known of them, each time."""
    counts: list[int] = []
    real = attribution.known

    def watched(part: Slice, inputs: tuple[torch.Tensor, ...], rule: str) -> Known:
        counts.append(len(inputs[0]))
        return real(part, inputs, rule)

    monkeypatch.setattr(attribution, "known", watched)
    return counts


def test_what_is_known_of_pictures_stays_in_memory(
    network: Network,
    piece: Slice,
    fresh: Callable[[], tuple[LowerMaps, Pictures]],
    asked: list[int],
) -> None:
    maps, _ = fresh()
    made = known(maps, network, piece, INDEX, 3)
    assert all(len(each) == len(INDEX) for each in made.values())
    again = known(maps, network, piece, np.array([7, 3, 5]), 3)
    assert asked == [3, 1], "two are at hand"
    for name, each in made.items():
        assert torch.equal(again[name][:2], each[[3, 0]])
    inputs = maps.of(network, piece, INDEX)
    other = maps.known(network, piece, "raising", INDEX, inputs, 3)
    assert other.keys() < made.keys(), "by gradient nothing is divided"


def test_of_more_pictures_than_memory_has_room_for_nothing_is_kept(
    network: Network,
    piece: Slice,
    fresh: Callable[[], tuple[LowerMaps, Pictures]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps, _ = fresh()
    made = known(maps, network, piece, INDEX, 4)
    inputs = maps.of(network, piece, INDEX)
    size = sum(each[0].nbytes for each in (*made.values(), *inputs))
    monkeypatch.setattr(lower_maps, "KEPT", 100 * size)
    assert known(maps, network, piece, INDEX, 100)
    assert not known(maps, network, piece, INDEX, 101), "the latest would push out the first"


def test_maps_of_what_most_neurons_cite_are_made_ahead(
    network: Network,
    piece: Slice,
    fresh: Callable[[], tuple[LowerMaps, Pictures]],
    monkeypatch: pytest.MonkeyPatch,
    asked: list[int],
) -> None:
    monkeypatch.setattr(lower_maps, "AHEAD", 3)
    monkeypatch.setattr(lower_maps, "AT_ONCE", 2)
    monkeypatch.setattr(lower_maps, "WORTH", 0.0)
    maps, pictures = fresh()
    assert not maps.get_ready()
    maps.look_ahead(network, ("layer3", "layer4"), "gradient", np.full((3, 2), -1))
    assert not maps.get_ready(), "no neuron fires"
    about = ("layer3", "layer4"), "lrp", np.array([[5, 2], [2, 8], [8, 2], [1, -1]])
    maps.look_ahead(network, *about)
    assert [maps.get_ready() for _ in range(4)] == [True, True, True, False]
    assert pictures.decoded == 3
    maps.of(network, piece, np.array([2, 8, 1]))  # cited three times, twice, and first of the rest
    assert pictures.decoded == 3
    maps.look_ahead(network, *about)
    assert not maps.get_ready(), "what was looked at is not looked at again"
    other, unread = fresh()
    other.look_ahead(network, *about)
    assert not other.get_ready(), "all are on disk"
    assert known(other, network, piece, np.array([2, 8, 1]), 3)
    assert not unread.decoded
    assert sum(asked) == 3


def test_of_the_pictures_cited_most_what_is_known_goes_to_disk_as_far_as_it_has_room(
    network: Network,
    piece: Slice,
    fresh: Callable[[], tuple[LowerMaps, Pictures]],
    monkeypatch: pytest.MonkeyPatch,
    asked: list[int],
) -> None:
    monkeypatch.setattr(lower_maps, "WORTH", 0.0)
    maps, _ = fresh()
    made = known(maps, network, piece, INDEX[:1], 1)
    inputs = maps.of(network, piece, INDEX[:1])
    own, more = (sum(each.nbytes for each in some) for some in (inputs, made.values()))
    monkeypatch.setattr(lower_maps, "DISK_GB", (4 * own + 2 * more) / 2**30)
    maps.look_ahead(network, ("layer3", "layer4"), "lrp", np.array([[5, 2], [2, 8], [8, 9]]))
    while maps.get_ready():
        pass
    other, _ = fresh()
    asked.clear()
    for picture, missing in ((2, 0), (8, 0), (5, 1), (9, 2)):
        known(other, network, piece, np.array([picture]), 1)
        assert len(asked) == missing
