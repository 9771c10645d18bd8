"""The photographs of GCompris, out of the Qt resource files of seven of its activities."""

from __future__ import annotations

import io
import re
from functools import partial
from pathlib import Path, PurePosixPath

from PIL import Image

from explorer.images import rcc, scenes
from explorer.images.stamps import Maker, Row, decoded
from explorer.records import Unavailable

_ACTIVITIES = (
    "categorization", "erase", "explore_farm_animals", "explore_monuments",
    "explore_world_animals", "explore_world_music", "solar_system",
)  # fmt: skip
"""The activities whose WebP pictures are photographs, all of them."""

_LABELS = {
    "fishes": "fish", "tools": "tools", "monuments": "monuments", "others": "household",
    "numbers": "toys", "alphabets": "toys", "explore_monuments": "monuments",
    "explore_world_music": "music", "solar_system": "planets",
}  # fmt: skip

_KINDS = {
    "birds": "northern_harrier penguin swans kingfisher heron toucan gosling spoonbills chicken "
    "duck owl scarlet_macaw",
    "insects": "caterpillar butterfly bee",
    "reptiles": "chamaeleon chameleon crocodile dragon",
    "shellfish": "crab",
    "marsupials": "koala kangaroo",
    "windmills": "windmill",
    "solar panels": "solar",
    "power stations": "dam geothermal",
}
_KIND = {name: kind for kind, names in _KINDS.items() for name in names.split()}


def makers(root: Path) -> list[Maker]:
    """One maker per photograph in the resource files of ``root``, by activity and path."""
    found: list[Maker] = []
    for activity in _ACTIVITIES:
        path = root / f"{activity}.rcc"
        if not path.is_file():
            continue
        pictures = _pictures(path)
        found += [
            partial(_make, path, PurePosixPath(name), pictures[name]) for name in sorted(pictures)
        ]
    return found


def _pictures(path: Path) -> dict[str, bytes]:
    """The WebP files within a resource file."""
    try:
        contents = dict(rcc.resources(path.read_bytes()))
    except ValueError as error:
        raise Unavailable(
            f"{path} is damaged: reinstall the package gcompris-qt-data and try again."
        ) from error
    return {name: content for name, content in contents.items() if name.endswith(".webp")}


def _make(source: Path, name: PurePosixPath, content: bytes, folder: Path) -> list[Row]:
    activity = source.stem
    picture = decoded(io.BytesIO(content), "WEBP", source)
    short = min(picture.size)
    if short > scenes.SIDE:
        width, height = (round(edge * scenes.SIDE / short) for edge in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    # Only the planets are cut out, and space is black.
    black = Image.new("RGBA", picture.size, "black")
    place = PurePosixPath("photographs", activity, name.parent.name, f"{name.stem}.jpg")
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.alpha_composite(black, picture).convert("RGB").save(path, quality=92)
    return [Row(str(place), label_of(activity, name), str(place), caption(name.stem))]


def label_of(activity: str, name: PurePosixPath) -> str:
    """A coarse label, shared with the stamps where they show the like; "mammals" for the rest."""
    kind = _KIND.get(re.sub(r"\d+$", "", name.stem))
    return kind or _LABELS.get(name.parent.name) or _LABELS.get(activity, "mammals")


def caption(stem: str) -> str:
    """Words of a file's name: "leaningTowerOfPisa" -> "leaning tower of pisa"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"\d+$", "", stem))
    return words.replace("_", " ").lower()
