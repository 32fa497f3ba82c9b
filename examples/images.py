"""Classifies every picture in a folder: pictures are read while others are computed.

python examples/images.py model.onnx photos/ --hosts hosts.ini
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import distredge as de

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp"}


def pictures(files: list[Path], shape: list[int]) -> Iterator[np.ndarray[Any, Any]]:
    """Each picture as the model's input: float32 of shape (1, 3, height, width), 0 to 1."""
    _, _, height, width = shape
    for file in files:
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB").resize((width, height)), np.float32)
        yield pixels.transpose(2, 0, 1)[None] / 255


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hosts", help="hosts file whose peers are running (default: two local peers)")
    args = parser.parse_args(argv)
    files = sorted(file for file in args.folder.iterdir() if file.suffix.lower() in ENDINGS)
    with de.InferenceSession(args.model, hosts=args.hosts) as session:
        (info,) = session.get_inputs()
        # A generator: a picture is read only when there is room for it. Answers come in the same order.
        answers = session.stream(pictures(files, info.shape), in_flight=4)
        for file, outputs in zip(files, answers, strict=True):
            scores = outputs[0].ravel()
            print(f"{file.name}: class {scores.argmax()}, score {scores.max():.3g}")


if __name__ == "__main__":
    main()
