"""The demo's input: a scanned page out of scikit-image, as PP-OCRv6's text detector wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distredge.errors import DistrEdgeError

SIZE = 960
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_SPREAD = np.array([0.229, 0.224, 0.225], np.float32)

Array = np.ndarray[Any, np.dtype[Any]]


def scanned_page(size: int = SIZE) -> Array:
    """The scan twice, one under the other, on a white square.

    Returns:
        An RGB picture, uint8, of shape (size, size, 3).

    Raises:
        DistrEdgeError: scikit-image or pillow is missing.
    """
    try:
        import skimage
        from PIL import Image
    except ImportError as error:
        raise DistrEdgeError(f"the demo needs {error.name}; pip install 'distredge[demo]'") from error
    folder = Path(skimage.__file__).parent / "data"
    square = Image.new("RGB", (size, size), "white")
    scan = Image.open(folder / "page.png").convert("RGB")
    height = round(scan.height * size / scan.width)
    scan = scan.resize((size, height), Image.Resampling.BICUBIC)
    for top in range(0, size - height + 1, height):
        square.paste(scan, (0, top))
    return np.asarray(square)


def to_input(picture: Array) -> Array:
    """RGB uint8 (H, W, 3) -> float32 (1, 3, H, W), normalised as the detector was trained."""
    scaled = (picture.astype(np.float32) / 255 - _MEAN) / _SPREAD
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


def text_boxes(probability: Array, threshold: float = 0.3) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) around connected text pixels.

    The detector marks shrunken text kernels, so each box is grown by a fraction of its height.

    Args:
        probability: the detector's output, (1, 1, H, W), 0 to 1.
        threshold: what counts as text.
    """
    from skimage.measure import label, regionprops

    height, width = probability.shape[2:]
    boxes = []
    for region in regionprops(label(probability[0, 0] > threshold)):
        top, left, bottom, right = region.bbox
        if bottom - top < 3 or right - left < 3:
            continue
        grow = round(0.6 * min(bottom - top, right - left))
        box = (left - grow, top - grow, right + grow, bottom + grow)
        boxes.append((max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])))
    return boxes
