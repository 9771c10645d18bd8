"""What a person sees of a picture: crops, heat maps and dimmed surroundings."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from explorer.images import thumbnails
from explorer.records import BadInput

VIEW = np.random.default_rng(0).integers(1, 256, (112, 112, 3), dtype=np.uint8)
BOX = np.array([10, 20, 60, 90], np.int32)


def corner_heat() -> np.ndarray:
    heat = np.zeros((28, 28), np.uint8)
    heat[:7, :7] = 255
    return heat


def test_whole_is_the_view_itself() -> None:
    np.testing.assert_array_equal(thumbnails.render(VIEW), VIEW)
    np.testing.assert_array_equal(thumbnails.render(VIEW, BOX, corner_heat()), VIEW)


def test_a_crop_is_exactly_the_box() -> None:
    seen = thumbnails.render(VIEW, BOX, style="crop")
    np.testing.assert_array_equal(seen, VIEW[20:90, 10:60])


@pytest.mark.parametrize("box", [None, (5, 5, 5, 9), (9, 9, 4, 4), (200, 0, 300, 50)])
def test_an_empty_box_keeps_the_whole(box: tuple[int, int, int, int] | None) -> None:
    np.testing.assert_array_equal(thumbnails.render(VIEW, box, style="crop"), VIEW)


def test_a_box_is_cut_at_the_border() -> None:
    assert thumbnails.render(VIEW, (-9, 100, 50, 500), style="crop").shape == (12, 50, 3)


def test_a_mask_dims_what_lies_outside_the_heat() -> None:
    seen = thumbnails.render(VIEW, None, corner_heat(), "mask")
    np.testing.assert_array_equal(seen[:20, :20], VIEW[:20, :20])
    np.testing.assert_array_equal(seen[60:, 60:], np.rint(VIEW[60:, 60:] * 0.4))


def test_heat_lies_over_the_picture_and_never_hides_it() -> None:
    seen = thumbnails.render(VIEW, None, corner_heat(), "heat").astype(float)
    np.testing.assert_array_equal(seen[60:, 60:], VIEW[60:, 60:])
    hot, under = seen[:16, :16].ravel(), VIEW[:16, :16].astype(float).ravel()
    assert np.abs(hot - under).mean() > 20
    assert np.corrcoef(hot, under)[0, 1] > 0.7


@pytest.mark.parametrize("style", ["heat", "mask"])
def test_a_box_crops_heat_and_mask_too(style: str) -> None:
    seen = thumbnails.render(VIEW, BOX, corner_heat(), style)
    whole = thumbnails.render(VIEW, None, corner_heat(), style)
    np.testing.assert_array_equal(seen, whole[20:90, 10:60])
    without = thumbnails.render(VIEW, BOX, None, style)
    np.testing.assert_array_equal(without, VIEW[20:90, 10:60])


def test_rendering_leaves_its_inputs_alone() -> None:
    view, heat = VIEW.copy(), corner_heat()
    for style in thumbnails.STYLES:
        thumbnails.render(view, BOX, heat, style)
    np.testing.assert_array_equal(view, VIEW)
    np.testing.assert_array_equal(heat, corner_heat())


@pytest.mark.parametrize("style", thumbnails.STYLES)
def test_a_thumbnail_is_a_small_webp(style: str) -> None:
    data = thumbnails.thumbnail(VIEW, BOX, corner_heat(), style, size=48)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "WEBP"
        assert max(image.size) == 48
    assert data == thumbnails.thumbnail(VIEW, BOX, corner_heat(), style, size=48)


def test_a_thumbnail_is_never_enlarged() -> None:
    with Image.open(io.BytesIO(thumbnails.thumbnail(VIEW, BOX, style="crop", size=500))) as image:
        assert image.size == (50, 70)


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(BadInput, match="sepia"):
        thumbnails.render(VIEW, style="sepia")
