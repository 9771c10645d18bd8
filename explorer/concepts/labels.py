"""Labels as concepts: the classes of an image set and the larger kinds that they belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from explorer.concepts import hierarchy, wordnet
from explorer.records import BadInput, ImageSet


@dataclass(frozen=True)
class Labels:
    """``names`` of M concepts, ``member`` bool[N,M] whether a picture is one, ``classes`` i64[M]
    how many classes each covers, ``source`` of the larger kinds (see ``source_of``)."""

    names: tuple[str, ...]
    member: np.ndarray
    classes: np.ndarray
    source: str


def source_of(images: ImageSet, data: Path) -> str:
    """Where the larger kinds of this set come from: "hierarchy:" and a digest where a file beside
    the pictures says, else "wordnet", "folders" or "" (nowhere)."""
    if given := hierarchy.source(images):
        return given
    if _wnids(images) and wordnet.find(data):
        return "wordnet"
    return "folders" if any(len(PurePosixPath(path).parents) > 2 for path in images.paths) else ""


def labelled(images: ImageSet) -> bool:
    """Whether the pictures have labels to explain with."""
    return len(images.label_names) > 1 and int((images.labels >= 0).sum()) > 1


def label_concepts(images: ImageSet, data: Path, source: str) -> Labels:
    """Classes, then larger kinds that cover more than one class but not all; of kinds that cover
    the same classes only the nearest stays. Raises BadInput where no picture has a label."""
    classes = len(images.label_names)
    if not labelled(images):
        raise BadInput(
            "The pictures have no labels to explain with: put them in folders by class, or "
            "explain with a list of concepts."
        )
    larger: Mapping[str, Sequence[int]] = {}
    if source == "wordnet":
        larger = _from_wordnet(images, data)
    elif source == "folders":
        larger = _from_folders(images)
    elif source:
        larger = hierarchy.kinds(images, source)
    groups = _distinct(larger, classes)
    member = np.zeros((len(images), classes + len(groups)), bool)
    own = np.flatnonzero(images.labels >= 0)
    member[own, images.labels[own]] = True
    for at, (_, covered) in enumerate(groups, classes):
        member[:, at] = np.isin(images.labels, covered)
    names = _unique([*images.label_names, *(name for name, _ in groups)])
    sizes = np.array([1] * classes + [len(covered) for _, covered in groups])
    return Labels(names, member, sizes, source)


def _wnids(images: ImageSet) -> dict[int, str]:
    """The WordNet id of each label: a folder above its pictures that is named so. Empty unless
    every label has one."""
    found: dict[int, str] = {}
    for path, label in zip(images.paths, images.labels.tolist(), strict=True):
        if label >= 0 and label not in found:
            named = [part for part in PurePosixPath(path).parts if wordnet.WNID.fullmatch(part)]
            if not named:
                return {}
            found[label] = named[-1]
    return found


def _from_wordnet(images: ImageSet, data: Path) -> dict[str, list[int]]:
    file = wordnet.find(data)
    if file is None:
        raise BadInput("WordNet was here when this was asked and is gone: ask again.")
    covered: dict[str, list[int]] = {}
    for label, wnid in sorted(_wnids(images).items()):
        for kind in wordnet.kinds(file, wnid):
            covered.setdefault(kind, []).append(label)
    return {
        f"{wordnet.name(file, kind)}\0{kind}": labels
        for kind, labels in sorted(covered.items(), key=lambda item: (len(item[1]), item[0]))
    }


def _from_folders(images: ImageSet) -> dict[str, list[int]]:
    """Folders above the classes, named by as much of their path as tells them apart."""
    covered: dict[str, set[int]] = {}
    for path, label in zip(images.paths, images.labels.tolist(), strict=True):
        for parent in PurePosixPath(path).parents[:-1] if label >= 0 else ():
            covered.setdefault(str(parent), set()).add(label)
    deepest = sorted(covered, key=lambda folder: (-folder.count("/"), folder))
    taken = Counter(tail for each in deepest for tail in _tails(each))
    taken.update(images.label_names)
    names = {each: next((t for t in _tails(each) if taken[t] == 1), each) for each in deepest}
    return {f"{names[each]}\0{each}": sorted(covered[each]) for each in deepest}


def _tails(folder: str) -> list[str]:
    """The last folder of a path, the last two, and so on."""
    parts = PurePosixPath(folder).parts
    return ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def _distinct(larger: Mapping[str, Sequence[int]], classes: int) -> list[tuple[str, list[int]]]:
    """Kinds of more than one class but not all, one for each set of classes; the first stays."""
    kept: dict[tuple[int, ...], str] = {}
    for name, covered in larger.items():
        if 1 < len(covered) < classes:
            kept.setdefault(tuple(covered), name.partition("\0")[0])
    return [(name, list(covered)) for covered, name in kept.items()]


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Names that repeat an earlier one are numbered."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)
