"""Lists of concepts as text: the one that comes along, and those that people give."""

from __future__ import annotations

import unicodedata
from functools import cache
from hashlib import blake2b
from pathlib import Path

from explorer.records import BadInput

SHIPPED = Path(__file__).with_name("visual_terms.txt")
MOST, LONGEST = 10_000, 80
TEXT_BYTES = 2_000_000


@cache
def shipped() -> tuple[str, ...]:
    """Visual nouns, adjectives, textures, colours, parts and scenes of our own choosing."""
    return read(SHIPPED.read_text(encoding="utf-8"))


def read(text: str) -> tuple[str, ...]:
    """The concepts of a text, one per line, each once (capitals do not matter), in order.

    Raises BadInput for an empty list, one that is too long, and lines that are no plain words.
    """
    if text.count("\n") > 10 * MOST:
        raise BadInput(f"The list has {text.count(chr(10)):,} lines: give {MOST:,} at most.")
    found: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        term = words(line, f"Line {number} of the list")
        if term:
            found.setdefault(term.casefold(), term)
    if not found:
        raise BadInput("The list holds no concept: write one on each line.")
    if len(found) > MOST:
        raise BadInput(f"The list holds {len(found):,} concepts: give {MOST:,} at most.")
    return tuple(found.values())


def read_file(path: Path) -> tuple[str, ...]:
    """The concepts of a text file; BadInput where it cannot be read."""
    try:
        if path.stat().st_size > TEXT_BYTES:
            raise BadInput(f"{path} is larger than a list of {MOST:,} concepts: shorten it.")
        return read(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as a list of concepts: give UTF-8 text.") from error


def digest(concepts: tuple[str, ...]) -> str:
    """32 hexadecimal digits that name a list."""
    return blake2b("\n".join(concepts).encode(), digest_size=16).hexdigest()


def words(line: str, where: str) -> str:
    """A line of plain words, with single spaces; BadInput, naming ``where``, for any other."""
    line = line.strip()
    if any(unicodedata.category(letter)[0] == "C" and letter != "\t" for letter in line):
        raise BadInput(f"{where} holds control characters: remove them.")
    found = " ".join(line.split())
    if any(mark in found for mark in "<>{}"):
        raise BadInput(f"{where} holds markup (< > {{ }}): give plain words.")
    if len(found) > LONGEST:
        raise BadInput(f"{where} is longer than {LONGEST} letters: shorten it.")
    if found and not any(letter.isalnum() for letter in found):
        raise BadInput(f"{where} holds no word: remove it.")
    return found
