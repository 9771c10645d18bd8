"""Lists of edits as files: JSON beside the safetensors file that holds the edited weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from explorer.networks.identity import contents
from explorer.records import BadInput, Edit

FORMAT = "channel-surgery/1"
LARGEST = 50_000_000
FIELDS = {"format", "network", "weights", "base", "outputs", "file", "contents", "layers", "edits"}


@dataclass(frozen=True)
class EditList:
    """What was done to a network: ``network`` and ``weights`` as they are named, ``base`` the
    digest of the original weights, ``outputs`` the number of its classes, ``edits`` in order.
    ``file`` is the name of the safetensors file, ``contents`` its digest; ``layers`` gives the
    widened layers: module path -> [channels before, channels now]."""

    network: str
    weights: str
    base: str
    outputs: int
    edits: tuple[Edit, ...]
    layers: Mapping[str, tuple[int, int]]
    file: str = ""
    contents: str = ""


def to_json(listed: EditList) -> str:
    """The text of the JSON file; ``from_json`` reads it back."""
    edits = [
        {
            "layer": edit.layer,
            "channel": edit.channel,
            "concepts": list(edit.concepts),
            "rule": edit.rule,
            "rho": edit.rho,
            "owner": edit.owner.tolist(),
            "parts": edit.parts.tolist(),
        }
        for edit in listed.edits
    ]
    document = {
        "format": FORMAT,
        "network": listed.network,
        "weights": listed.weights,
        "base": listed.base,
        "outputs": listed.outputs,
        "file": listed.file,
        "contents": listed.contents,
        "layers": {path: list(sizes) for path, sizes in listed.layers.items()},
        "edits": edits,
    }
    return json.dumps(document) + "\n"


def from_json(text: str, name: str) -> EditList:
    """Read the JSON of a list of edits; BadInput, naming the file, when it is none."""
    try:
        found = json.loads(text)
        if set(found) != FIELDS or found["format"] != FORMAT:
            raise ValueError
        edits = tuple(_edit(each) for each in found["edits"])
        layers = {str(path): (int(old), int(new)) for path, (old, new) in found["layers"].items()}
        texts = {key: str(found[key]) for key in ("network", "weights", "base", "file", "contents")}
        return EditList(outputs=int(found["outputs"]), edits=edits, layers=layers, **texts)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"'{name}' is no list of edits: give the JSON file that surgery wrote beside its "
            "safetensors file."
        ) from error


def _edit(found: Mapping[str, Any]) -> Edit:
    owner = np.array(found["owner"], np.int32)
    concepts = tuple(map(str, found["concepts"]))
    if owner.ndim != 1 or owner.min(initial=0) < -1 or owner.max(initial=-1) >= len(concepts):
        raise ValueError
    parts = np.array(found["parts"], np.float32)
    if not parts.size:
        parts = parts.reshape(0, 0)
    elif parts.shape != (len(concepts), len(owner)) or not np.isfinite(parts).all():
        raise ValueError
    channel, rho = int(found["channel"]), float(found["rho"])
    return Edit(str(found["layer"]), channel, concepts, str(found["rule"]), rho, owner, parts)


def read(path: Path) -> EditList:
    """The list of edits in a file; BadInput when it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LARGEST)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"'{path.name}' cannot be read as a list of edits.") from error
    return from_json(text, path.name)


def weights_of(path: Path, listed: EditList) -> Path:
    """The safetensors file of the list at ``path``: beside it, and as it was written.

    Raises BadInput when the name leaves the folder, the file is missing, or it was changed.
    """
    plain = re.fullmatch(r"[\w.-]{1,200}\.safetensors", listed.file)
    beside = path.parent / listed.file
    if not plain or not beside.is_file() or beside.resolve().parent != path.resolve().parent:
        raise BadInput(
            f"'{path.name}' needs its weights '{listed.file[:80]}' in the same folder: put the two "
            "files side by side."
        )
    if contents(beside) != listed.contents:
        raise BadInput(
            f"'{listed.file}' is not the file that '{path.name}' was written with (its hash "
            "differs): keep the two files of one download together."
        )
    return beside
