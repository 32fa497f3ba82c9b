"""Reads a picture's text with RapidOCR, all three of its models on peers.

python examples/rapidocr_on_peers.py page.png --hosts hosts.ini
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import distredge as de


@contextmanager
def rapidocr_on(hosts: Any, **settings: Any) -> Iterator[None]:
    """Every session that RapidOCR opens meanwhile is on these peers. It opens some only when it reads.

    Args:
        hosts: a hosts file, or a cluster.
        settings: of `InferenceSession`.
    """
    from rapidocr.inference_engine.onnxruntime import main as engine

    usual = engine.InferenceSession
    engine.InferenceSession = partial(de.InferenceSession, hosts=hosts, **settings)
    try:
        yield
    finally:
        engine.InferenceSession = usual


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("picture")
    parser.add_argument("--hosts", required=True, help="hosts file whose peers are running")
    args = parser.parse_args()
    from rapidocr import RapidOCR

    with rapidocr_on(args.hosts):
        for line in RapidOCR()(args.picture).txts or ():
            print(line)


if __name__ == "__main__":
    main()
