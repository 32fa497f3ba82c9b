"""Runs a video file, or a webcam, through a model; of a webcam, frames that come too fast are left out.

python examples/video.py model.onnx film.mp4 --hosts hosts.ini
python examples/video.py model.onnx 0              # the first camera
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

import distredge as de


def frames(source: str, shape: list[int]) -> Iterator[np.ndarray[Any, Any]]:
    """Each frame as the model's input: float32 of shape (1, 3, height, width), RGB, 0 to 1."""
    _, _, height, width = shape
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    if not capture.isOpened():
        raise SystemExit(f"{source}: no video file or camera that can be opened")
    try:
        while True:
            there, picture = capture.read()
            if not there:
                return
            pixels = cv2.resize(picture, (width, height))[:, :, ::-1]
            yield np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)[None] / 255
    finally:
        capture.release()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("source", help="a video file, or the number of a camera")
    parser.add_argument("--hosts", help="hosts file whose peers are running (default: two local peers)")
    parser.add_argument("--limit", type=int, help="stop after so many frames")
    parser.add_argument("--view", help="serve a page that shows what the peers do, as 127.0.0.1:8080")
    args = parser.parse_args(argv)
    with de.InferenceSession(args.model, hosts=args.hosts, view=args.view) as session:
        (info,) = session.get_inputs()
        # A camera does not wait: when there is no room for a frame, only the newest is kept.
        drop = "oldest" if args.source.isdecimal() else None
        start, done = time.monotonic(), 0
        for done, outputs in enumerate(session.stream(frames(args.source, info.shape), drop=drop), 1):
            print(f"frame {done}: class {outputs[0].argmax()}")
            if done == args.limit:
                break
        rate = done / (time.monotonic() - start)
        print(f"{done} frames, {rate:.1f} a second, {session.dropped} left out")


if __name__ == "__main__":
    main()
