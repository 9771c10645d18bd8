"""What a person sees of a picture: whole, cropped, under a heat map or dimmed around it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from explorer.records import BadInput

STYLES = ("whole", "crop", "heat", "mask")
MASK_THRESHOLD = 0.02
"""Share of the strongest relevance above which a pixel stays bright (methods of the figures)."""
DIMMED = 0.4
HEAT_ALPHA = 0.55
"""Opacity where relevance is strongest: the picture must stay visible beneath."""

_INFERNO = np.array(
    [
        (0, 0, 4), (22, 11, 57), (66, 10, 104), (106, 23, 110), (147, 38, 103), (188, 55, 84),
        (221, 81, 58), (243, 120, 25), (252, 165, 10), (246, 215, 70), (252, 255, 164),
    ],
    np.float32,
)  # fmt: skip
"""f32[11,3]: eleven even steps of the inferno colour map, 0 to 255."""


def render(
    view: np.ndarray,
    box: Sequence[int] | np.ndarray | None = None,
    heat: np.ndarray | None = None,
    style: str = "whole",
) -> np.ndarray:
    """Draw a view u8[H,W,3] in one of STYLES: u8[h,w,3], at the view's own pixels.

    ``box`` (left, top, right, bottom; exclusive end) crops every style but ``whole``; None or an
    empty box keeps the whole. ``heat`` u8[S,S] spans the whole view; ``heat`` lays it over,
    ``mask`` dims what lies outside it. Without it these two are as ``crop``.
    """
    if style not in STYLES:
        raise BadInput(f"'{style[:40]}' is no style of picture: choose {', '.join(STYLES)}.")
    picture = np.asarray(view)
    if style in ("heat", "mask") and heat is not None:
        strength = _spread(heat, picture.shape[1], picture.shape[0])
        picture = (_overlaid if style == "heat" else _dimmed)(picture, strength)
    left, top, right, bottom = _inside(box if style != "whole" else None, picture)
    return np.ascontiguousarray(picture[top:bottom, left:right])


def thumbnail(
    view: np.ndarray,
    box: Sequence[int] | np.ndarray | None = None,
    heat: np.ndarray | None = None,
    style: str = "whole",
    size: int = 128,
) -> bytes:
    """The same as WebP bytes, its long side at most ``size`` pixels (never enlarged)."""
    image = Image.fromarray(render(view, box, heat, style))
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=82, method=2)
    return buffer.getvalue()


def _inside(box: Sequence[int] | np.ndarray | None, view: np.ndarray) -> tuple[int, int, int, int]:
    height, width = view.shape[:2]
    if box is None:
        return 0, 0, width, height
    left, top, right, bottom = (int(side) for side in box)
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    return (left, top, right, bottom) if left < right and top < bottom else (0, 0, width, height)


def _spread(heat: np.ndarray, width: int, height: int) -> np.ndarray:
    """Heat u8[S,S] as f32[height,width,1] in 0 to 1."""
    image = Image.fromarray(np.asarray(heat, np.uint8)).convert("F")
    spread = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    return np.asarray(spread[..., None] / np.float32(255.0))


def _overlaid(view: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Inferno over the picture, as opaque as the relevance is strong."""
    steps = np.linspace(0.0, 1.0, len(_INFERNO))
    shade = strength[..., 0]
    colour = np.stack([np.interp(shade, steps, _INFERNO[:, band]) for band in range(3)], axis=-1)
    alpha = HEAT_ALPHA * strength
    return _bytes(view * (1.0 - alpha) + colour * alpha)


def _dimmed(view: np.ndarray, strength: np.ndarray) -> np.ndarray:
    return _bytes(view * np.where(strength > MASK_THRESHOLD, 1.0, DIMMED))


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(values), np.uint8)
