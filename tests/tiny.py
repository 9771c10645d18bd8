"""A tiny real workspace for tests: a small untrained network over drawn pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image, ImageDraw

from explorer.__main__ import main
from explorer.answers.room import Room
from explorer.records import Status, Workspace
from explorer.settings import Settings
from explorer.store import Store

NETWORK = "timm:test_resnet"
WEIGHTS = "random:0"
JUDGE = "network:timm:test_efficientnet@random:1"
LAYER = "layer4"
LOWER = "layer3"
"""Where relevance is traced to, with other layers between."""
SHAPES = ("disc", "stripes", "square")
T = TypeVar("T")


def draw_pictures(folder: Path, each: int = 10) -> Path:
    """Class folders of drawn pictures, ``each`` per class, the same every time."""
    for kind in SHAPES:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            random = np.random.default_rng([SHAPES.index(kind), number])
            noise = random.integers(0, 80, (90, 110, 3), np.uint8)
            picture = Image.fromarray(noise)
            pen = ImageDraw.Draw(picture)
            colour = tuple(int(c) for c in random.integers(100, 255, 3))
            if kind == "disc":
                pen.ellipse((20, 15, 80, 75), fill=colour)
            elif kind == "square":
                pen.rectangle((30, 20, 85, 70), fill=colour)
            else:
                for left in range(0, 110, 16):
                    pen.rectangle((left, 0, left + 7, 90), fill=colour)
            picture.save(folder / kind / f"{number:02}.png")
    return folder


def tiny_settings(folder: Path, pictures: Path, read_only: bool = False) -> Settings:
    """Settings with the one workspace ``tiny``, its cache under ``folder``."""
    workspace = Workspace("tiny", NETWORK, WEIGHTS, str(pictures), JUDGE, (LAYER,))
    return Settings(folder / "cache", 1.0, "cpu", read_only, 1.0, "local", (workspace,))


def tiny_room(folder: Path) -> Room:
    """The room of that workspace, over drawn pictures."""
    settings = tiny_settings(folder, draw_pictures(folder / "pictures"))
    return Room(settings, Store(settings.cache_dir, 1.0))


def write_config(folder: Path, pictures: Path, layers: Sequence[str] = (LAYER,)) -> Path:
    """``explorer.toml`` in ``folder`` with the one workspace ``tiny``."""
    path = folder / "explorer.toml"
    path.write_text(
        f'[[workspace]]\nname = "tiny"\nnetwork = "{NETWORK}"\nweights = "{WEIGHTS}"\n'
        f'images = "{pictures}"\nembedder = "{JUDGE}"\nlayers = {json.dumps(list(layers))}\n'
    )
    return path


def surround(monkeypatch: pytest.MonkeyPatch, config: Path, cache: Path) -> None:
    """The environment of commands that read this configuration and keep answers in ``cache``."""
    monkeypatch.setenv("EXPLORER_CONFIG", str(config))
    monkeypatch.setenv("EXPLORER_CACHE_DIR", str(cache))
    monkeypatch.setenv("EXPLORER_DEVICE", "cpu")


def command(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    """The JSON object that a command prints; nothing else may be on stdout."""
    assert main([*argv, "--json"]) == 0, capsys.readouterr().err
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


def wait(ask: Callable[[], T | Status]) -> T:
    """The answer to a question whose jobs are done here and now."""
    for _ in range(20):
        answer = ask()
        if not isinstance(answer, Status):
            return answer
        assert answer.state == "done", answer
    raise AssertionError("never answered")
