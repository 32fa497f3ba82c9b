"""The demo's own parts; the whole of it is `make demo`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distredge.demo.page import scanned_page, text_boxes, to_input
from distredge.demo.pictures import draw_result
from distredge.graph.rows import Rows


def test_the_page_is_what_the_detector_takes() -> None:
    page = scanned_page(320)
    assert page.shape == (320, 320, 3)
    assert page.dtype == np.uint8
    assert page.std() > 20, "a page has something on it"
    image = to_input(page)
    assert image.shape == (1, 3, 320, 320)
    assert image.dtype == np.float32


def test_boxes_surround_the_text_and_grow_by_its_height() -> None:
    probability = np.zeros((1, 1, 100, 200), np.float32)
    probability[0, 0, 40:50, 20:120] = 0.9
    probability[0, 0, 90:91, 0:1] = 0.9
    assert text_boxes(probability) == [(14, 34, 126, 56)]


def test_bands_of_rows_are_drawn_over_the_picture(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "page.png"
    white = np.full((200, 300, 3), 255, np.uint8)
    draw_result(
        white, [(10, 10, 50, 30)], [("a", Rows(0, 120)), ("b", Rows(100, 200)), ("c", Rows(0, 0))], path
    )
    drawn = np.asarray(Image.open(path)).astype(int)
    edge = drawn[:, -3]
    assert (edge[50] != edge[150]).any(), "each peer has a colour of its own"
    assert (drawn[20, 10] != drawn[20, 100]).any(), "the box is drawn"
