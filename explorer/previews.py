"""Small pictures for the screen, made once and kept in the store."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from explorer.images.pictures import view
from explorer.images.thumbnails import thumbnail
from explorer.keys import digest
from explorer.recent import Recent
from explorer.records import BadInput, Crops, ImageSet, Preprocess
from explorer.store import Store

STYLES = ("whole", "crop", "heat", "mask")
VERSION = 1
MOST = 1000
DRAWN_KEPT, VIEWS_KEPT = 32 * 2**20, 32 * 2**20
"""Bytes of small pictures, and of the pictures they are made of, that stay in memory."""


class Previews:
    """Thumbnails of pictures as a network sees them; those made before come from memory or from
    the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._drawn: Recent[bytes] = Recent(DRAWN_KEPT)
        self._views: Recent[np.ndarray] = Recent(VIEWS_KEPT)
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="previews")

    def thumbnails(
        self,
        images: ImageSet,
        preprocess: Preprocess,
        index: Sequence[int],
        style: str,
        crops: Crops | None,
        size: int,
    ) -> list[bytes]:
        """WebP bytes, ``size`` pixels a side, one per image id in ``index``.

        Styles but "whole" are drawn from the image's place in ``crops``; an image that is not
        there is shown whole. A picture that cannot be read raises BadInput.
        """
        if style not in STYLES or not 16 <= size <= 1024 or len(index) > MOST:
            raise BadInput(f"Thumbnails come as {', '.join(STYLES)}, 16 to 1024 pixels wide.")
        places = {} if crops is None else {int(i): k for k, i in enumerate(crops.index)}
        wanted = [_wanted(int(i), style, crops, places.get(int(i)), size) for i in index]
        names = [(images.digest, preprocess, each.name) for each in wanted]
        found = [self._drawn.get(name) for name in names]
        missing = [at for at, each in enumerate(found) if each is None]

        def make(at: int) -> bytes:
            made = self._stored(images, preprocess, wanted[at])
            self._drawn.put(names[at], made, len(made))
            return made

        made = dict(zip(missing, self._pool.map(make, missing), strict=True))
        return [each if each is not None else made[at] for at, each in enumerate(found)]

    def _stored(self, images: ImageSet, preprocess: Preprocess, wanted: Wanted) -> bytes:
        box, heat = wanted.box, wanted.heat
        about = (images.digest, wanted.image, preprocess, wanted.style, wanted.size, box)
        heated = "" if heat is None else digest(heat.tobytes().hex())
        name = f"thumbnail:{digest(VERSION, *about, heated)}"
        found = self._store.get_bytes(name)
        if found is None:
            pixels = self._view(images, preprocess, wanted.image)
            found = thumbnail(pixels, box, heat, wanted.style, wanted.size)
            self._store.put_bytes(name, found)
        return found

    def _view(self, images: ImageSet, preprocess: Preprocess, image: int) -> np.ndarray:
        """The picture, which is often drawn more than once: cropped, whole, small."""
        name = (images.digest, preprocess, image)
        found = self._views.get(name)
        if found is None:
            found = view(images.root, images.paths[image], preprocess)
            self._views.put(name, found, found.nbytes)
        return found


@dataclass(frozen=True)
class Wanted:
    """One small picture: how it is drawn, from which part, under which map."""

    image: int
    style: str
    size: int
    box: np.ndarray | None
    heat: np.ndarray | None

    @property
    def name(self) -> Hashable:
        """What tells it from any other."""
        parts = (b"" if each is None else each.tobytes() for each in (self.box, self.heat))
        return self.image, self.style, self.size, *parts


def _wanted(image: int, style: str, crops: Crops | None, place: int | None, size: int) -> Wanted:
    if crops is None or place is None or style == "whole":
        return Wanted(image, "whole", size, None, None)
    heat = crops.heat[place] if style != "crop" else None
    return Wanted(image, style, size, crops.box[place], heat)
