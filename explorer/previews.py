"""Small pictures for the screen, made once and kept in the store."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from explorer.images.pictures import view
from explorer.images.thumbnails import thumbnail
from explorer.keys import digest
from explorer.records import BadInput, Crops, ImageSet, Preprocess
from explorer.store import Store

STYLES = ("whole", "crop", "heat", "mask")
VERSION = 1
MOST = 1000


class Previews:
    """Thumbnails of pictures as a network sees them; those made before come from the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
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

        def one(image: int) -> bytes:
            return self._one(images, preprocess, image, style, crops, places.get(image), size)

        return list(self._pool.map(one, (int(image) for image in index)))

    def _one(
        self,
        images: ImageSet,
        preprocess: Preprocess,
        image: int,
        style: str,
        crops: Crops | None,
        place: int | None,
        size: int,
    ) -> bytes:
        box: np.ndarray | None = None
        heat: np.ndarray | None = None
        if crops is not None and place is not None and style != "whole":
            box = crops.box[place]
            heat = crops.heat[place] if style != "crop" else None
        shown = style if box is not None else "whole"
        about = digest(VERSION, images.digest, image, preprocess, shown, size, box, _sum(heat))
        name = f"thumbnail:{about}"
        found = self._store.get_bytes(name)
        if found is None:
            pixels = view(images.root, images.paths[image], preprocess)
            found = thumbnail(pixels, box, heat, shown, size)
            self._store.put_bytes(name, found)
        return found


def _sum(heat: np.ndarray | None) -> str:
    return "" if heat is None else digest(heat.tobytes().hex())
