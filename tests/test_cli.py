"""The command line: what it prints, and how it refuses what it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import (
    LAYER,
    LOWER,
    NETWORK,
    command,
    draw_pictures,
    surround,
    write_config,
)

from explorer.__main__ import main


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures and an ``explorer.toml`` whose first workspace is tiny."""
    folder = tmp_path_factory.mktemp("cli")
    pictures = draw_pictures(folder / "pictures")
    write_config(folder, pictures)
    (folder / "empty").mkdir()
    save_file({"other": np.zeros(3, np.float32)}, folder / "other.safetensors")
    (folder / "bad.json").write_text("{")
    return folder


@pytest.fixture(autouse=True)
def environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surround(monkeypatch, home / "explorer.toml", home / "cache")


SPLIT = ("split", f"{LAYER}:3", "--k", "2", "--lower", LOWER, "--references", "12")


def test_layers(capsys: pytest.CaptureFixture[str]) -> None:
    found = command(capsys, "layers")
    assert {"name": LAYER, "channels": 96, "height": 5, "width": 5}.items() <= next(
        layer for layer in found["layers"] if layer["name"] == LAYER
    ).items()


def test_scan_and_neurons(capsys: pytest.CaptureFixture[str]) -> None:
    found = command(capsys, "scan", "--layers", LAYER, LOWER)
    assert found["images"] == 30
    assert found["layers"] == [LOWER, LAYER]
    assert found["skipped"] == []
    assert {"seconds", "images_per_second"} <= set(found)
    rows = command(capsys, "neurons", LAYER, "--sort", "density", "--limit", "4")["neurons"]
    assert len(rows) == 4
    assert rows[0]["density"] >= rows[3]["density"]


def test_split_prints_the_promised_fields(capsys: pytest.CaptureFixture[str]) -> None:
    found = command(capsys, *SPLIT)
    promised = {
        "neuron", "method", "version", "params", "seed", "k", "labels", "paths", "sizes",
        "silhouette", "stability", "scores", "provenance",
    }  # fmt: skip
    assert promised <= set(found)
    assert found["k"] == 2
    assert len(found["labels"]) == len(found["paths"]) == 12
    for name in ("intra", "inter", "gap", "correlation"):
        assert {"value", "null", "null_sd", "n"} == set(found["scores"][name])
    assert found == command(capsys, *SPLIT)


def test_fewer_references_than_asked_for_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("split", f"{LAYER}:3", "--k", "2", "--lower", LOWER, "--no-scores")
    found = command(capsys, *argv, "--references", "500")
    assert found["notice"].startswith("500 references were asked for and ")
    assert len(found["labels"]) <= 30
    assert command(capsys, *argv, "--references", "5")["notice"] == ""


@pytest.mark.parametrize("method", ["concept_vectors", "activations", "embedding", "random"])
def test_every_method_splits_from_the_command_line(
    capsys: pytest.CaptureFixture[str], method: str
) -> None:
    given = ["--separation", "1.0"] if method == "concept_vectors" else ["--k", "2"]
    argv = ("split", f"{LAYER}:3", "--method", method, "--no-scores", "--references", "20")
    found = command(capsys, *argv, *given)
    assert found["method"] == method
    assert sum(found["sizes"]) <= 20


def test_a_figure_from_a_recipe(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    recipe = {
        "figure": "virtual_neurons",
        "workspace": "tiny",
        "neuron": f"{LAYER}:3",
        "params": {"k": 2, "lower": LOWER},
        "references": {"count": 12},
    }
    (home / "recipe.json").write_text(json.dumps(recipe))
    target = home / "figure.pdf"
    command(capsys, "figure", str(home / "recipe.json"), "-o", str(target))
    first = target.read_bytes()
    assert first.startswith(b"%PDF")
    command(capsys, "figure", str(home / "recipe.json"), "-o", str(target))
    assert target.read_bytes() == first


def test_text_output_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["neurons", LAYER, "--limit", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"layer: {LAYER}"
    assert lines[1].split()[:3] == ["channel", "max", "mean"]
    assert len(lines) == 5


def test_cache_says_what_is_stored(capsys: pytest.CaptureFixture[str]) -> None:
    found = command(capsys, "cache", "--prune")
    assert found["answers"] > 0
    assert found["scans_bytes"] > 0


def test_doctor_looks_at_everything(capsys: pytest.CaptureFixture[str]) -> None:
    found = command(capsys, "doctor")
    looked = {check["check"]: check["well"] for check in found["checks"]}
    assert looked["packages"]
    assert looked["device"]
    assert looked["cache folder"]


CUSTOM = ("split", f"{LAYER}:3", "--no-scores")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("split", f"{LAYER}:3", "--workspace", "nope"), "no workspace 'nope'"),
        (("split", f"{LAYER}:9999"), "channels 0 to 95"),
        (("split", "layer4"), "LAYER:CHANNEL"),
        (("split", "layerX:3"), "no layer 'layerX'"),
        (("split", f"{LAYER}:3", "--method", "magic"), "no method 'magic'"),
        (("split", f"{LAYER}:3", "--k", "99"), "between 0 and 8"),
        (("split", f"{LAYER}:3", "--separation", "1"), "has no --separation"),
        (("split", f"{LAYER}:3", "--references", "0"), "1 to 1000 references"),
        (("split", f"{LAYER}:3", "--lower", "fc"), "cannot explain"),
        (("layers", "--network", "timm:no_such_network"), "no_such_network"),
        (("layers", "--network", "resnet18"), "timm:"),
        (("layers", "--network", "torchvision:resnet18", "--weights", "NOPE"), "NOPE"),
        (("layers", "--network", NETWORK, "--weights", "{home}/none.safetensors"), "none.safe"),
        (("layers", "--network", NETWORK, "--weights", "{home}/other.safetensors"), "other.safe"),
        ((*CUSTOM, "--images", "{home}/missing"), "missing"),
        ((*CUSTOM, "--images", "{home}/empty"), "empty"),
        (("split", f"{LAYER}:3", "--embedder", "magic"), "not an embedder"),
        (("neurons", LAYER, "--search", "dog"), "embeds pictures only"),
        (("scan", "--layers", "layer9"), "no layer 'layer9'"),
        (("figure", "{home}/bad.json", "-o", "{home}/x.pdf"), "not JSON"),
        (("figure", "{home}/missing.json", "-o", "{home}/x.pdf"), "cannot be read"),
        (("figure", "{home}/bad.json", "-o", "{home}/x.gif"), "no figure file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], home: Path, argv: tuple[str, ...], sentence: str
) -> None:
    assert main([each.format(home=home) for each in argv]) == 2
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("explorer: ")
    assert sentence in last
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("argv", [(), ("split",), ("no-such-command",), ("scan", "--colour")])
def test_misuse_is_one_line(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(argv))
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_dead_neuron_says_so(
    capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path
) -> None:
    """A network of zeros fires on nothing."""
    import timm

    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    zeros = {name: np.zeros(tuple(value.shape), np.float32) for name, value in state.items()}
    save_file(zeros, tmp_path / "zeros.safetensors")
    weights = str(tmp_path / "zeros.safetensors")
    argv = ["split", f"{LAYER}:3", "--network", NETWORK, "--weights", weights]
    assert main(argv) == 2
    assert "fires on none of the 30 pictures" in capsys.readouterr().err
