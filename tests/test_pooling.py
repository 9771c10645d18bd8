"""What a scan keeps of a map is what PyTorch's operators find."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from explorer.networks import pooling
from explorer.networks.cores import divided
from explorer.networks.machine_code import PROCESSORS


@pytest.fixture(params=PROCESSORS, autouse=True)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "registers", lambda: PROCESSORS[request.param])


def drawn(kind: str, *shape: int) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    made = {"signed": values, "rectified": values.relu(), "negative": -values.abs() - 1}
    made["infinite"] = torch.where(values > 1, torch.inf, values)
    return made[kind].contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["signed", "rectified", "negative", "infinite"])
@pytest.mark.parametrize("channels", [16, 64, 112, 336])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 7), (19, 23)])
def test_maximum_mean_and_position_are_those_of_pytorch(
    dtype: torch.dtype, kind: str, channels: int, size: tuple[int, int]
) -> None:
    maps = drawn(kind, 5, channels, *size).to(dtype)
    assert pooling.suits(maps)
    maximum, mean, position = pooling.pooled(maps)
    highest, where = F.max_pool2d(maps, size, return_indices=True)
    assert maximum.dtype == mean.dtype == dtype
    assert torch.equal(maximum, highest.flatten(1))
    assert torch.equal(position, where.flatten(1).int())
    assert torch.equal(mean, F.avg_pool2d(maps, size).flatten(1))


def test_maps_on_several_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []

    def counted(work: Callable[[tuple[int, int]], None], total: int, each: int) -> None:
        def noted(part: tuple[int, int]) -> None:
            parts.append(part)
            work(part)

        divided(noted, total, each)

    maps = drawn("signed", 9, 128, 40, 56)
    alone = [pooling.pooled(maps[at : at + 1]) for at in range(9)]
    monkeypatch.setattr(pooling, "divided", counted)
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        together = pooling.pooled(maps)
    finally:
        torch.set_num_threads(threads)
    assert sorted(parts) == [(0, 2), (2, 4), (4, 6), (6, 9)]
    for whole, each in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(each))


def test_what_does_not_suit(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = drawn("signed", 2, 32, 4, 4)
    assert pooling.suits(maps)
    assert not pooling.suits(maps.contiguous()), "channels first"
    assert not pooling.suits(maps.half())
    assert not pooling.suits(maps.double())
    assert not pooling.suits(maps[:, :31].contiguous(memory_format=torch.channels_last))
    monkeypatch.setattr(pooling, "registers", lambda: None)
    assert not pooling.suits(maps), "a processor of another kind"
