"""Tux Paint's stamps: which are photographs, what they show, and scenes of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from PIL import Image

from explorer.images import pictures, scenes
from explorer.records import Unavailable


class Row(NamedTuple):
    """One line of ``pictures.csv``."""

    path: str
    label: str
    source: str
    caption: str


Maker = Callable[[Path], list[Row]]
"""Writes the pictures of one source below a folder and returns their rows."""

_LEFT_OUT = frozenset(
    {
        "cartoon",
        "symbols",
        "roadsigns",
        "flags",
        "plastic",
        "toys",
        "easter",
        "newyears",
        "halloween",
    }
)
"""Folders of drawings, or nearly all drawings, and one of ten tombstones that look alike."""

_LABELS = {
    "animals/dinosaur": "dinosaurs", "animals/lizards": "reptiles",
    "household/arttools": "art tools",
    "military/ammunition": "weapons", "military/vehicles": "military vehicles",
    "seasonal/winter": "winter", "vehicles/auto": "cars", "vehicles/construction": "machines",
    "vehicles/cycle": "cycles", "vehicles/emergency": "emergency vehicles",
    "vehicles/farming": "machines", "vehicles/flight": "aircraft", "vehicles/locomotive": "trains",
    "vehicles/masstransit": "buses", "vehicles/race": "cars", "vehicles/ship": "ships",
    "naturalforces": "fire and weather", "space/moon": "planets",
}  # fmt: skip
"""Labels that are not simply the last of a stamp's first two folders."""


def makers(root: Path) -> list[Maker]:
    """One maker per stamp outside the folders left out, in order of its path."""
    paths = sorted(path.relative_to(root) for path in root.rglob("*.png"))
    return [
        partial(_make, root, path)
        for path in paths
        if not _LEFT_OUT.intersection(path.parts) and not path.stem.endswith("_mirror")
    ]


def _make(root: Path, path: Path, folder: Path) -> list[Row]:
    stamp = decoded(root / path, "PNG", root / path)
    if not scenes.photographic(stamp):
        return []
    name = path.with_suffix("").as_posix()
    label, text = label_of(path.parent.as_posix()), caption(root / path.with_suffix(".txt"))
    rows = []
    for variant in range(scenes.VARIANTS):
        picture, mask = scenes.scene(stamp, name, variant)
        place = PurePosixPath("scenes", f"{name}-{variant + 1}")
        _save(picture, folder / f"{place}.jpg")
        _save(mask, folder / "masks" / f"{place}.png")
        rows.append(Row(f"{place}.jpg", label, name, text))
    return rows


def decoded(file: Path | BinaryIO, form: str, place: Path) -> Image.Image:
    """A packaged picture as RGBA; Unavailable, naming ``place``, when it is damaged."""
    try:
        with Image.open(file, formats=(form,)) as image:
            return image.convert("RGBA")
    except pictures.BROKEN as error:
        raise Unavailable(
            f"{place} is damaged: reinstall the package that it belongs to and try again."
        ) from error


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=92)


def label_of(folder: str) -> str:
    """The label of a stamp in ``folder`` ("animals/birds"): coarse, so that many share it."""
    parts = folder.split("/")[:2]
    return _LABELS.get("/".join(parts), parts[-1])


def caption(path: Path) -> str:
    """The first, English, line of a stamp's text: "A toucan." -> "a toucan"."""
    if not path.is_file():
        return path.stem.replace("_", " ").replace("-", " ")
    lines = path.read_text("utf-8", errors="replace").splitlines()
    text = re.split(r"(?<=\w\w)[.!]", lines[0].strip() if lines else "")[0]
    return re.sub(r"^(A|An|The|Some)\b", lambda word: word[0].lower(), text)
