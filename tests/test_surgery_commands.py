"""Channel surgery end to end on a small network: commands, files, the way back as a workspace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import (
    JUDGE,
    LOWER,
    NETWORK,
    WEIGHTS,
    command,
    draw_pictures,
    surround,
    write_config,
)

from explorer.__main__ import main
from explorer.operations import Operation, check, operation
from explorer.records import BadInput, ImageSet

CONV = "layer4.0.conv1"
"""Its channels are those of layer4.0.act1."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("surgery")
    pictures = draw_pictures(folder / "pictures", each=8)
    write_config(folder, pictures)
    plain = folder / "plain"
    plain.mkdir()
    for path in sorted((pictures / "disc").iterdir()):
        (plain / path.name).write_bytes(path.read_bytes())
    lonely = folder / "lonely"
    for kind in ("disc", "square"):
        (lonely / kind).mkdir(parents=True)
        (lonely / kind / "one.png").write_bytes((pictures / kind / "00.png").read_bytes())
    return folder


@pytest.fixture(autouse=True)
def environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surround(monkeypatch, home / "explorer.toml", home / "cache")


def test_candidates_by_classes(capsys: pytest.CaptureFixture[str]) -> None:
    loose = ("--tau", "0.001", "--share", "0.3", "--gamma", "1", "--least", "2")
    found = command(capsys, "polysemantic", "conv1.6", *loose)
    assert (found["layer"], found["by"], found["how"]) == ("conv1.6", "classes", "sliced backward")
    assert found["candidates"]
    cosines = [each["cosine"] for each in found["candidates"]]
    assert cosines == sorted(cosines)
    for each in found["candidates"]:
        assert {"channel", "groups", "cosine", "pictures"} == set(each)
        for label, pictures in zip(each["groups"], each["pictures"], strict=True):
            assert len(set(pictures)) == 5
            assert all(path.startswith(f"{label}/") for path in pictures)
        assert set(each["groups"]) <= {"disc", "stripes", "square"}
    strict = command(capsys, "polysemantic", "conv1.6", *loose[:4], "--gamma", "0", "--least", "2")
    assert strict["candidates"] == []
    assert "raise the cosine" in strict["notice"]


def test_candidates_by_splits_need_no_labels(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    argv = ("polysemantic", CONV, "--images", str(home / "plain"))
    assert main([*argv]) == 2
    assert "no labels" in capsys.readouterr().err
    found = command(capsys, *argv, "--by", "splits", "--derive", "2", "--gamma", "1")
    assert found["by"] == "splits"
    assert found["looked"] <= 2


def surgery(capsys: pytest.CaptureFixture[str], target: Path, *argv: str) -> dict[str, Any]:
    return command(capsys, "surgery", *argv, "-o", str(target), "--pictures", "12")


@pytest.mark.parametrize("rule", ["symmetric", "published", "fitted"])
def test_surgery_by_classes_prints_the_promised_fields(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, rule: str
) -> None:
    argv = (f"{CONV}:3", "--classes", "disc", "stripes", "--rule", rule)
    found = surgery(capsys, tmp_path / "edited.json", *argv)
    assert (found["layer"], found["channel"]) == (CONV, 3)
    assert found["new_channels"] == [3, 96, 97]
    assert found["max_abs_logit_difference"] < 1e-5
    assert found["max_abs_logit_difference_float64"] < 1e-12
    assert (found["top1_changed"], found["pictures"]) == (0, 12)
    assert found["concepts"] == ["disc", "stripes"]
    for row in found["fractions"]:
        assert row[0] + row[1] - row[2] == pytest.approx(1, abs=1e-4)
    assert sum(found["inputs"].values()) == 192 * 9
    assert found["judged_on"] == [4, 4]
    assert found["misplaced_null"] == 0.25
    assert found["misplaced"] >= 0
    aligned = found["alignment"]
    assert (aligned["embedder"], aligned["intra"]["n"] <= 24) == (JUDGE, True)
    for name in ("intra", "inter", "gap", "correlation"):
        assert {"value", "null", "null_sd", "n"} == set(aligned[name])
    assert {each["part"] for each in found["top_labels"]} == {"original", "disc", "stripes"}
    assert 0 < found["purity_null"] < 1
    assert found["file"].endswith("edited.json")
    assert (tmp_path / "edited.safetensors").is_file()


def test_round_trip_split_download_load_browse_and_split_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "three.json"
    classes = ("--classes", "disc", "stripes", "square")
    found = surgery(capsys, target, f"{CONV}:3", f"{CONV}:5", "layer3.0.conv1:1", *classes)
    assert [each["new_channels"][1:] for each in found["edits"][:2]] == [
        [96, 97, 98],
        [99, 100, 101],
    ]
    assert found["top1_changed"] == 0
    again = ("--network", NETWORK, "--weights", f"edits:{target}")
    layers = {each["name"]: each for each in command(capsys, "layers", *again)["layers"]}
    shown = layers[f"{CONV}.split"]
    assert shown["channels"] == 102
    rows = command(capsys, "neurons", f"{CONV}.split", *again, "--limit", "200")["neurons"]
    assert len(rows) == 102
    alive = next(row["channel"] for row in rows if row["alive"] and row["channel"] >= 96)
    split = ("split", f"{CONV}.split:{alive}", "--k", "2", "--lower", LOWER, "--no-scores")
    assert command(capsys, *split, *again, "--references", "12")["k"] == 2
    more = surgery(capsys, tmp_path / "more.json", f"{CONV}.split:7", *classes, *again)
    assert more["layer"] == CONV
    assert more["new_channels"] == [7, 102, 103, 104]
    assert len(json.loads((tmp_path / "more.json").read_text())["edits"]) == 4


def test_surgery_by_the_virtual_neurons_of_a_split(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = ("layer4.0.act1:3", "--split", "activations", "--k", "2", "--references", "16")
    found = surgery(capsys, tmp_path / "split.json", *argv)
    assert found["layer"] == CONV
    assert found["concepts"] == ["virtual neuron A", "virtual neuron B"]


TWO = ("--classes", "disc", "stripes", "-o", "{tmp}/x.json")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ((f"{CONV}:3", "--classes", "disc", "disc", "-o", "{tmp}/x.json"), "on both sides"),
        ((f"{CONV}:3", "--classes", "disc", "-o", "{tmp}/x.json"), "2 to 8 concepts"),
        (
            (f"{CONV}:3", "--classes", "disc", "stripe", "-o", "{tmp}/x.json"),
            "mean stripes, square?",
        ),
        (("conv1.0:3", *TWO, "--rho", "0.0001", "--rule", "symmetric"), "no input is left for"),
        ((f"{CONV}:3", *TWO, "--rho", "2"), "rho lies above 0"),
        ((f"{CONV}:3", *TWO, "--pictures", "0"), "at least one picture"),
        (
            (f"{CONV}:3", *TWO, "--images", "{home}/lonely", "--classes", "disc", "square"),
            "too few",
        ),
        ((f"{CONV}:96", *TWO), "channels 0 to 95"),
        (("layer9:3", *TWO), "no layer 'layer9'"),
        ((CONV, *TWO), "LAYER:CHANNEL"),
        ((f"{CONV}:3", *TWO[:-1], "{tmp}/x.pt"), "end its name with .json"),
        ((f"{CONV}:3", *TWO[:-1], "{tmp}/none/x.json"), "create it first"),
        ((f"{CONV}:3", "--split", "magic", "-o", "{tmp}/x.json"), "no method 'magic'"),
        ((f"{CONV}:3", "--split", "activations", "--k", "1", "-o", "{tmp}/x.json"), "as one"),
        ((f"{CONV}:3", *TWO, "--network", NETWORK, "--weights", "edits:{home}/no.json"), "no list"),
    ],
)
def test_bad_input_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    home: Path,
    tmp_path: Path,
    argv: tuple[str, ...],
    sentence: str,
) -> None:
    assert main(["surgery", *(each.format(home=home, tmp=tmp_path) for each in argv)]) == 2
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("explorer: ")
    assert sentence in last
    assert "Traceback" not in captured.err
    assert not list(tmp_path.glob("x.*"))


def test_weights_that_are_no_numbers_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    from explorer.networks.zoo import load

    state = load(NETWORK, WEIGHTS).model.state_dict()
    state[f"{CONV}.weight"] = state[f"{CONV}.weight"].clone()
    state[f"{CONV}.weight"][3, 0, 0, 0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    weights = ("--network", NETWORK, "--weights", str(tmp_path / "nan.safetensors"))
    argv = ("surgery", f"{CONV}:3", "--classes", "disc", "square", "-o", str(tmp_path / "x.json"))
    assert main([*argv, *weights]) == 2
    assert "not finite numbers" in capsys.readouterr().err


def test_depthwise_channels_name_the_layer_to_divide(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = ("surgery", "blocks.3.0.conv_dw:3", "--classes", "disc", "square")
    network = ("--network", "timm:test_efficientnet", "--weights", "random:1")
    assert main([*argv, *network, "-o", str(tmp_path / "x.json")]) == 2
    assert "divide the same channel of blocks.3.0.conv_pw" in capsys.readouterr().err


def test_operations_have_a_short_text() -> None:
    one = Operation("bn2:3", ((0, 4), (7,)), rule="published", rho=0.35)
    two = Operation("bn2:3", method="pure", k=3)
    assert one.text == "bn2:3~0.4,7~published~0.35"
    assert [operation(each.text) for each in (one, two)] == [one, two]
    for text in ("", "bn2:3", "bn2~0,1~symmetric~0", "bn2:3~a,b~symmetric~0", "a:1~0,1~x~y"):
        with pytest.raises(BadInput, match="no operation"):
            operation(text)
    assert np.isfinite(one.rho)


def test_labels_without_pictures_are_refused() -> None:
    names, labels = ("disc", "square", "empty"), np.array([0, 1], np.int32)
    images = ImageSet("drawn", "", "", ("a", "b"), labels, names, np.arange(2), "")
    with pytest.raises(BadInput, match="'empty' has no pictures in drawn"):
        check(Operation("bn2:3", ((0,), (2,))), images)
    with pytest.raises(BadInput, match="no label number 7"):
        check(Operation("bn2:3", ((0,), (7,))), images)
