"""Settings and workspaces: what is read, and how wrong ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from explorer.records import BadInput
from explorer.settings import DEMO, load_settings

GOOD = """
[[workspace]]
name = "mine"
network = "torchvision:resnet50"
weights = "IMAGENET1K_V2"
images = "/data/pictures"
layers = ["layer3", "layer4"]
"""


def test_the_demo_workspace_needs_no_file(tmp_path: Path) -> None:
    settings = load_settings({"EXPLORER_CACHE_DIR": str(tmp_path)})
    assert settings.workspace("demo") == DEMO
    assert settings.cache_dir == tmp_path
    assert not settings.read_only


def test_workspaces_come_from_the_file_and_the_demo_stays(tmp_path: Path) -> None:
    config = tmp_path / "explorer.toml"
    config.write_text(GOOD)
    settings = load_settings({"EXPLORER_CONFIG": str(config)})
    assert [workspace.name for workspace in settings.workspaces] == ["mine", "demo"]
    mine = settings.workspace("mine")
    assert mine.layers == ("layer3", "layer4")
    assert mine.embedder == "conse"
    assert mine.precision == "float32"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[workspace", "cannot be read as TOML"),
        ("[server]\nport = 1", "only"),
        ('[[workspace]]\nname = "a"', "needs the texts"),
        ('[[workspace]]\nname = "a/b"\nnetwork = "n"\nimages = "i"', "no name"),
        ('[[workspace]]\nname = "a"\nnetwork = "n"\nimages = "i"\nlayers = "x"', "list of layer"),
        (
            '[[workspace]]\nname = "a"\nnetwork = "n"\nimages = "i"\nprecision = "fp8"',
            "float32, bf16",
        ),
        ('[[workspace]]\nname = "a"\nnetwork = "n"\nimages = "i"\ncolour = "x"', "only the keys"),
        (GOOD + GOOD, "twice"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    config = tmp_path / "explorer.toml"
    config.write_text(text)
    with pytest.raises(BadInput, match=sentence) as caught:
        load_settings({"EXPLORER_CONFIG": str(config)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EXPLORER_CACHE_GB", "lots"),
        ("EXPLORER_CACHE_GB", "-1"),
        ("EXPLORER_DEVICE", "tpu"),
        ("EXPLORER_READ_ONLY", "yes"),
        ("EXPLORER_COLOUR", "red"),
        ("EXPLORER_CONFIG", "/nowhere/explorer.toml"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(BadInput, match=name):
        load_settings({name: value})


def test_an_unknown_workspace_lists_the_known() -> None:
    with pytest.raises(BadInput, match="demo"):
        load_settings({}).workspace("nope")
