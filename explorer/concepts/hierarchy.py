"""Larger kinds of classes from a file beside the pictures, for sets without WordNet's folders.

``hierarchy.csv`` in the root has the columns ``name`` and ``parent``, one line for each pair: a
label of the pictures, a class folder or a kind, and a larger kind that it belongs to. A name may
have several parents, in lines of their own.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from explorer.concepts.lists import TEXT_BYTES, words
from explorer.records import BadInput, ImageSet

FILE = "hierarchy.csv"
MOST = 100_000


def source(images: ImageSet) -> str:
    """``hierarchy:`` with a digest of the file; "" where there is none."""
    path = Path(images.root) / FILE
    if not path.is_file():
        return ""
    return f"hierarchy:{blake2b(_text(path).encode(), digest_size=16).hexdigest()}"


def kinds(images: ImageSet, asked: str) -> dict[str, list[int]]:
    """The labels that each kind covers, kinds nearest to the classes first. Raises BadInput where
    the file is not the one that ``asked`` names, or says what cannot be."""
    if source(images) != asked:
        raise BadInput(f"{FILE} has changed since this was asked: ask again.")
    path = Path(images.root) / FILE
    members: dict[str, list[str]] = {}
    for name, parent in _rows(path):
        members.setdefault(parent, []).append(name)
    covers = {name: 1 << label for name, label in _classes(images).items()}
    _check(path, members, covers)
    height = dict.fromkeys(covers, 0)
    for kind in _upwards(path, members):
        covers[kind] = covers.get(kind, 0)
        for name in members[kind]:
            covers[kind] |= covers[name]
        height[kind] = 1 + max(height.get(name, 0) for name in members[kind])
    ordered = sorted(members, key=lambda kind: (height[kind], kind))
    return {kind: _bits(covers[kind]) for kind in ordered}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > TEXT_BYTES:
            raise BadInput(f"{path} is too large to be a hierarchy of classes: shorten it.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as UTF-8 text: {error}.") from error


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """Pairs of a name and a parent."""
    reader = csv.DictReader(_text(path).splitlines(), restval="")
    try:
        lacking = {"name", "parent"} - set(reader.fieldnames or ())
        if lacking:
            raise BadInput(f"{path} lacks the column '{min(lacking)}' in its first line: add it.")
        for number, row in enumerate(reader, 2):
            name, parent = row["name"].strip(), words(row["parent"], f"Line {number} of {path}")
            if not name or not parent:
                raise BadInput(f"Line {number} of {path} needs a name and a parent: give both.")
            if number > MOST:
                raise BadInput(f"{path} has more than {MOST:,} lines: shorten it.")
            yield name, parent
    except csv.Error as error:
        raise BadInput(f"{path} cannot be read as CSV: {error}.") from error


def _classes(images: ImageSet) -> dict[str, int]:
    """The number of the label by each name for it: its own, or a folder all of whose pictures have
    it."""
    held: dict[str, set[int]] = {}
    for path, label in zip(images.paths, images.labels.tolist(), strict=True):
        for folder in PurePosixPath(path).parts[:-1] if label >= 0 else ():
            held.setdefault(folder, set()).add(label)
    folders = {folder: min(labels) for folder, labels in held.items() if len(labels) == 1}
    return folders | {name: number for number, name in enumerate(images.label_names)}


def _check(path: Path, members: Mapping[str, Sequence[str]], classes: Mapping[str, int]) -> None:
    """Raise BadInput for a name that is nothing."""
    import difflib

    for name in (name for names in members.values() for name in names):
        if name not in classes and name not in members:
            near = difflib.get_close_matches(name, [*classes, *members], 2)
            hint = f"did you mean {' or '.join(near)}?" if near else "remove its line."
            raise BadInput(
                f"{path} names '{name[:60]}', which is no label, class folder or kind: {hint}"
            )


def _upwards(path: Path, members: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Every kind after the kinds that belong to it. Raises BadInput for a circle."""
    waits = {kind: sum(name in members for name in names) for kind, names in members.items()}
    parents: dict[str, list[str]] = {}
    for kind, names in members.items():
        for name in names:
            parents.setdefault(name, []).append(kind)
    ready = sorted(kind for kind, count in waits.items() if not count)
    while ready:
        kind = ready.pop()
        yield kind
        for parent in parents.get(kind, ()):
            waits[parent] -= 1
            if not waits[parent]:
                ready.append(parent)
    if any(waits.values()):
        raise BadInput(f"{path} goes round in a circle: {_circle(members, waits)}. Break it.")


def _circle(members: Mapping[str, Sequence[str]], waits: Mapping[str, int]) -> str:
    """Kinds that belong to one another, the first of them again at the end."""
    walked = [min(kind for kind, count in waits.items() if count)]
    while walked[-1] not in walked[:-1]:
        walked.append(min(name for name in members[walked[-1]] if waits.get(name)))
    found = walked[walked.index(walked[-1]) :]
    shown = found if len(found) < 6 else [*found[:4], "…", found[-1]]
    return " has ".join(f"'{each[:40]}'" for each in shown)


def _bits(mask: int) -> list[int]:
    """The numbers of the bits that are set."""
    return [number for number in range(mask.bit_length()) if mask >> number & 1]
