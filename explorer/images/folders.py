"""A folder of pictures: which files belong to it, and what its sidecar files say of them.

Sidecars are optional. ``classes.csv``, at any depth, names the folders beside it (columns
``wnid`` or ``folder``, and ``name``). ``pictures.csv``, in the root alone, lists the pictures
that count (column ``path``; optional ``label``, ``source`` and ``caption``). ``concepts.csv``, in
the root, says what is where in them (see ``concept_boxes``). ``CREDITS.txt``, in the root, is shown
wherever the pictures are.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from explorer.records import BadInput

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
SIDECARS = frozenset({"classes.csv", "pictures.csv", "concepts.csv", "CREDITS.txt"})
SIDECAR_BYTES = 200_000_000
"""No sidecar is larger: one that is was not meant as such."""


@dataclass(frozen=True)
class File:
    """A file below the root: ``path`` relative with forward slashes, bytes, nanoseconds."""

    path: str
    size: int
    modified: int


@dataclass(frozen=True)
class Row:
    """What ``pictures.csv`` says of one picture; "" where it says nothing."""

    label: str
    source: str
    caption: str


@dataclass(frozen=True)
class Survey:
    """The pictures and sidecars below a root, each sorted by path."""

    root: Path
    pictures: tuple[File, ...]
    sidecars: tuple[File, ...]


def survey(root: Path) -> Survey:
    """Look through a folder by its directory entries alone; raise BadInput if it has no pictures.

    Hidden files, linked folders and links that leave the root are passed over.
    """
    if not root.is_dir():
        raise BadInput(f"The image folder {root} does not exist: give the path of a folder.")
    root = root.resolve()
    files = sorted(_walk(root, root), key=lambda file: file.path)
    pictures = [file for file in files if PurePosixPath(file.path).suffix.lower() in EXTENSIONS]
    sidecars = [file for file in files if PurePosixPath(file.path).name in SIDECARS]
    if any(file.path == "pictures.csv" for file in sidecars):
        listed = listing(root)
        missing = sorted(set(listed) - {file.path for file in pictures})
        if missing:
            raise BadInput(
                f"{root / 'pictures.csv'} lists '{missing[0]}', which is no picture in that "
                "folder: restore the file or remove its row."
            )
        pictures = [file for file in pictures if file.path in listed]
    if not pictures:
        raise BadInput(
            f"The image folder {root} holds no pictures: put JPEG, PNG, WebP, BMP, GIF or TIFF "
            "files in it or in folders below it."
        )
    return Survey(root, tuple(pictures), tuple(sidecars))


def _walk(root: Path, folder: Path) -> Iterator[File]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise BadInput(
            f"The image folder {folder} cannot be read ({error.strerror}): "
            "change its permissions or move it out."
        ) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, Path(entry.path))
        elif _wanted(entry.name) and (not entry.is_symlink() or _inside(root, entry)):
            status = entry.stat()
            path = Path(entry.path).relative_to(root).as_posix()
            yield File(path, status.st_size, status.st_mtime_ns)


def _wanted(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS or name in SIDECARS


def _inside(root: Path, entry: os.DirEntry[str]) -> bool:
    target = Path(os.path.realpath(entry.path))
    return target.is_relative_to(root) and target.is_file()


def listing(root: Path) -> dict[str, Row]:
    """The rows of ``pictures.csv`` by path, {} when the folder has none."""
    path = root / "pictures.csv"
    if not path.is_file():
        return {}
    return {
        row["path"]: Row(row.get("label") or "", row.get("source") or "", row.get("caption") or "")
        for row in table(path, ("path",))
    }


def folder_names(root: Path, sidecars: Sequence[File]) -> dict[str, str]:
    """What every ``classes.csv`` calls the folders beside it: relative folder -> name."""
    names: dict[str, str] = {}
    for file in sidecars:
        path = PurePosixPath(file.path)
        if path.name != "classes.csv":
            continue
        for row in table(root / file.path, ("name",)):
            folder = row.get("wnid") or row.get("folder")
            if not folder:
                raise BadInput(
                    f"{root / file.path} has a row without a folder: "
                    "give it a column wnid or folder, and a column name."
                )
            names[(path.parent / folder).as_posix()] = row["name"] or folder
    return names


def folder_label(path: str, names: Mapping[str, str]) -> tuple[str, str]:
    """The key and name of a picture's label: its nearest named folder, else its first folder.

    Both are "" for a picture that lies in the root.
    """
    parents = [parent.as_posix() for parent in PurePosixPath(path).parents][:-1]
    for parent in parents:
        if parent in names:
            return PurePosixPath(parent).name, names[parent]
    first = parents[-1] if parents else ""
    return first, first


def credits(root: Path) -> str:
    """The text of ``CREDITS.txt``, "" when the folder has none."""
    path = root / "CREDITS.txt"
    return _text(path).strip() if path.is_file() else ""


def table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has at least these columns; BadInput where it has not."""
    reader = csv.DictReader(_text(path).splitlines(), restval="")
    try:
        rows = list(reader)
    except csv.Error as error:
        raise BadInput(f"{path} cannot be read as CSV: {error}.") from error
    lacking = [column for column in columns if column not in (reader.fieldnames or ())]
    if lacking:
        raise BadInput(f"{path} lacks the column '{lacking[0]}' in its first line: add it.")
    return rows


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > SIDECAR_BYTES:
            raise BadInput(f"{path} is too large to be a list of pictures: move it out.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as UTF-8 text: {error}.") from error
