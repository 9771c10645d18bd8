"""What a WordNet noun is a kind of, read from Debian's package wordnet-base (optional)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from explorer.records import BadInput

SYSTEM = Path("/usr/share/wordnet/data.noun")
WNID = re.compile(r"n\d{8}")


def find(data: Path) -> Path | None:
    """The file of nouns: as installed, or at ``wordnet/data.noun`` in the data folder."""
    for path in (SYSTEM, data / "wordnet" / "data.noun"):
        if path.is_file():
            return path
    return None


def kinds(file: Path, wnid: str) -> tuple[str, ...]:
    """Every synset that ``wnid`` is a kind of, as wnids, itself left out, nearest first."""
    found: list[str] = []
    waiting = list(_read(file, wnid)[1])
    while waiting:
        each = waiting.pop(0)
        if each not in found:
            found.append(each)
            waiting += _read(file, each)[1]
    return tuple(found)


def name(file: Path, wnid: str) -> str:
    """The first word for a synset."""
    return _read(file, wnid)[0]


@lru_cache(maxsize=20_000)
def _read(file: Path, wnid: str) -> tuple[str, tuple[str, ...]]:
    """The first word of a synset and its hypernyms. Its number is its place in the file."""
    with file.open("rb") as lines:
        lines.seek(int(wnid[1:]))
        fields = lines.readline().decode("ascii", "replace").split("|")[0].split()
    if len(fields) < 6 or fields[0] != wnid[1:]:
        raise BadInput(f"{file} does not know {wnid}: it must be WordNet 3.0.")
    words = int(fields[3], 16)
    first = fields[4].replace("_", " ")
    return first, tuple(_hypernyms(fields[4 + 2 * words :]))


def _hypernyms(pointers: list[str]) -> Iterator[str]:
    for at in range(1, 1 + 4 * int(pointers[0]), 4):
        if pointers[at] in ("@", "@i"):
            yield f"n{pointers[at + 1]}"
