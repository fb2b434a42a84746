"""Blurred copies: what could be made out is gone, in stills and in films."""

import io

import av
import numpy as np
from PIL import Image

from forestay.safety.classifiers.marker import draw, find
from forestay.safety.media import blur
from forestay.safety.model import Picture
from forestay.safety.taxonomy import Category


def test_a_marker_is_found_in_the_original_and_not_in_its_copy() -> None:
    """Of the same shape, and no detail left."""
    marker = draw(Category.VIOLENCE, 32)
    assert find(marker)
    with Image.open(io.BytesIO(blur.still(marker))) as shown:
        copy = shown.convert("RGB")
        assert shown.format == "JPEG"
    assert copy.size == (marker.width, marker.height)
    assert not find(Picture("copy", copy.width, copy.height, copy.tobytes()))


def test_a_large_picture_is_smaller_and_a_tiny_one_still_a_picture() -> None:
    """At most a thousand pixels either way; of odd sizes too."""
    for size, expected in (((3000, 1500), (1024, 512)), ((3, 1), (3, 2))):
        picture = Picture("", *size, bytes(3 * size[0] * size[1]))
        with Image.open(io.BytesIO(blur.still(picture))) as shown:
            assert shown.size == expected


def test_a_film_is_a_film_of_blurred_looks() -> None:
    """One frame a look, in order, without sound."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    looks = [Picture(str(place), 65, 33, bytes(colour) * 65 * 33) for place, colour in enumerate(colours)]
    with av.open(io.BytesIO(blur.film(looks)), "r") as container:
        assert not container.streams.audio
        frames = [frame.to_ndarray(format="rgb24").mean(axis=(0, 1)) for frame in container.decode(video=0)]
    assert [int(np.argmax(frame)) for frame in frames] == [0, 1, 2]
