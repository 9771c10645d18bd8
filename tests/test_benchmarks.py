"""The benchmarks: that they can be started, how they measure, and that their figures are written
down. How fast anything is belongs to them, not to tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as benchmarks
from benchmarks import limits, scanning
from benchmarks.interleaved import interleave, spread
from benchmarks.options import Options, draw
from explorer.networks import pointwise, windowed, winograd
from explorer.networks.machine_code import PROCESSORS
from explorer.networks.pointwise import Pointwise
from explorer.networks.windowed import Transposed, Windowed
from explorer.networks.winograd import Tiled

HOME = Path(__file__).resolve().parent.parent
DOCUMENT = (HOME / "docs" / "performance.md").read_text(encoding="utf-8")


def test_help_lists_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmarks.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert {"relevance", "sweep"} <= benchmarks.found().keys()
    for name, what in benchmarks.found().items():
        assert name in shown
        assert what.endswith(".")


def test_options_are_documented() -> None:
    for action in benchmarks._parser({})._actions:
        option = action.option_strings[-1]
        assert option == "--help" or f"`{option}" in DOCUMENT


@pytest.mark.parametrize(
    "figure",
    [
        *("scan_over_bare_forward", "relevance_gradient_ms", "relevance_lrp_ms"),
        *("sweep_neurons_per_second", "ray_scan_over_local"),
    ],
)
def test_figures_that_are_promised_are_explained(figure: str) -> None:
    assert f"`{figure}`" in DOCUMENT


def test_unknown_benchmarks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmarks.main(["--only", "nothing"])
    assert ended.value.code == 2
    assert "relevance" in capsys.readouterr().err


@pytest.mark.parametrize("as_json", [False, True])
def test_figures_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    figures = spread("one_ms", np.array([1.0, 2.0, 4.0])) | {"pictures": 7}
    fake = type(sys)("benchmarks.relevance")
    fake.measure = lambda options: figures
    monkeypatch.setitem(sys.modules, "benchmarks.relevance", fake)
    argv = ["--only", "relevance", "--pictures", ".", *["--json"] * as_json]
    assert benchmarks.main(argv) == 0
    shown = capsys.readouterr().out
    if as_json:
        assert json.loads(shown).items() >= figures.items()
        assert json.loads(shown)["relevance_peak_mib"] > 0
    else:
        assert re.search(r"^one_ms +2 +\(1\.5 to 3\)$", shown, re.MULTILINE)


def test_one_that_fails_does_not_take_the_others_along(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        name = command[command.index("--only") + 1]
        said = f'printed besides\n{{"{name}_ms": 1.0}}\n'
        return subprocess.CompletedProcess(command, int(name == "sweep"), said)

    monkeypatch.setattr(benchmarks.subprocess, "run", run)
    assert benchmarks.main(["--only", "relevance", "sweep", "--json", "--pictures", "."]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found == {"relevance_ms": 1.0, "sweep_failed": 1}


@pytest.mark.parametrize("name", ["scanning", "sweep"])
def test_a_folder_that_is_not_there_is_told_in_a_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert benchmarks.main(["--quick", "--only", name, "--pictures", nowhere]) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(r"python -m benchmarks: .*nowhere does not exist.*\n", captured.err)
    assert not captured.out


def test_variants_run_in_turn_and_may_tell_their_own_time() -> None:
    order: list[str] = []

    def told() -> float:
        order.append("b")
        return 5.0

    found = interleave({"a": lambda: order.append("a"), "b": told}, rounds=2, warm=1)
    assert [sorted(order[at : at + 2]) for at in (0, 2, 4)] == [["a", "b"]] * 3
    assert found["b"].tolist() == [5.0, 5.0]
    assert len(found["a"]) == 2


def test_drawn_pictures_are_as_large_as_photographs(tmp_path: Path) -> None:
    sizes = [path.stat().st_size for path in draw(tmp_path, 2).iterdir()]
    assert len(sizes) == 2
    assert all(40_000 < size < 200_000 for size in sizes)


STEPS, BORDER = ((1, 1), (2, 2)), ((0, 0), (1, 1))


@pytest.mark.parametrize(
    "form",
    [
        ((2, 8, 7, 7), (6, 8, 3, 3), STEPS[0], BORDER[1], (1, 1), 1, False),
        ((2, 8, 7, 7), (8, 6, 3, 3), STEPS[0], BORDER[1], (1, 1), 1, True),
        ((2, 8, 7, 7), (8, 6, 1, 1), STEPS[0], BORDER[0], (1, 1), 1, True),
        ((2, 8, 9, 9), (6, 8, 3, 3), STEPS[1], BORDER[1], (1, 1), 1, False),
        ((2, 8, 7, 7), (8, 1, 3, 3), STEPS[0], BORDER[1], (1, 1), 8, False),
    ],
)
def test_all_ways_of_a_convolution_compute_the_same(form: tuple[Any, ...]) -> None:
    ways = limits._ways("convolution", *form)
    first, *others = (way() for way in ways)
    assert others
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-3, atol=1e-4)


def test_convolutions_are_counted_by_their_form(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pointwise, windowed, winograd):
        monkeypatch.setattr(module, "registers", lambda: PROCESSORS["avx2"])
    x, weight = torch.rand(2, 32, 5, 5), torch.rand(32, 32, 3, 3)
    point = weight[:, :, :1, :1]
    around = (2, ((1, 1), (1, 1)))
    ways = [Tiled(weight, 4), Pointwise(point), Pointwise(point, 2), Windowed(weight, around)]
    ran = []

    def work() -> None:
        ran.extend(torch.nn.functional.conv2d(x, weight, padding=1).relu() for _ in range(2))
        ran.extend(way(x) for way in ways)
        ran.append(ways[1].scaled(x, torch.ones_like(x), torch.ones_like(x)))

    read: dict[Any, torch.Tensor] = {}
    with limits._Noting() as noting, limits._noting_own(noting.calls, read):
        work()
    assert noting.calls == {
        ("convolution", x.shape, weight.shape, (1, 1), (1, 1), (1, 1), 1, False): 2,
        ("own", x.shape, weight.shape, Tiled, 4): 1,
        ("own", x.shape, point.shape, Pointwise, 1): 2,
        ("own", x.shape, point.shape, Pointwise, 2): 1,
        ("own", x.shape, weight.shape, Windowed, around): 1,
    }
    limits.fastest(work)()
    assert len(ran) == 14
    for form, way in zip(list(noting.calls)[1:], ways, strict=True):
        assert {each().shape for each in limits._ways(*form, read=read[form])} == {way(x).shape}
        assert torch.equal(read[form], x)


def test_of_a_transposed_convolution_its_parts_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pointwise, windowed, winograd):
        monkeypatch.setattr(module, "registers", lambda: PROCESSORS["avx2"])
    x, weight = torch.rand(2, 32, 5, 5), torch.rand(32, 32, 3, 3)
    back = Transposed(weight, (2, ((1, 1), (1, 1))), (10, 10))

    def work() -> None:
        back.scaled(x, torch.ones(2, 32, 10, 10), torch.ones(2, 32, 10, 10))

    read: dict[Any, torch.Tensor] = {}
    with limits._Noting() as noting, limits._noting_own(noting.calls, read):
        work()
    assert sorted(form[2][2:] for form in noting.calls) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert {form[3] for form in noting.calls} == {Windowed}
    for form in noting.calls:
        assert {tuple(each().shape) for each in limits._ways(*form, read=x)} == {(2, 32, 5, 5)}
    limits.fastest(work)()


def test_limits_are_left_out_where_time_is_short(tmp_path: Path) -> None:
    assert limits.measure(Options(True, False, tmp_path, "", tmp_path)).keys() == {"limits_skipped"}


@pytest.mark.parametrize("able", [True, False])
def test_scans_in_bf16_are_left_to_processors_that_have_it(
    able: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []

    def compared(name: str, *_: Any) -> dict[str, float]:
        named.append(name)
        return {f"scan_{name}_over_bare_forward": 1.0}

    monkeypatch.setattr(scanning, "multiplies_bf16", lambda: able)
    monkeypatch.setattr(scanning, "_compare", compared)
    monkeypatch.setattr(scanning, "Bench", lambda *_: SimpleNamespace(images=None))
    monkeypatch.setattr(scanning, "load", lambda *_: None)
    monkeypatch.setattr(scanning.Network, "build", lambda *_: None)
    monkeypatch.setattr(scanning, "_count", lambda *_: 1)
    figures = scanning.measure(Options(False, False, tmp_path, "", tmp_path))
    assert ("scan_bf16_skipped" in figures) != able
    assert [name for name in named if "float32" in name] == ["resnet50_float32", "lite0_float32"]
    assert any("bf16" in name for name in named) == able
