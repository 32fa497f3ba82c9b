"""RapidOCR, unmodified, reads a scanned page on peers: the same text, the same boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import distredge as de
from examples.rapidocr_on_peers import rapidocr_on

SETTINGS = {"Det.limit_side_len": 384, "Global.log_level": "critical"}
"""A smaller picture than usual for the detector, which makes the test quick."""


@pytest.mark.timeout(240)
def test_a_page_is_read_as_with_onnxruntime(tmp_path: Path) -> None:
    import onnxruntime
    import skimage
    from rapidocr import RapidOCR
    from rapidocr.inference_engine.onnxruntime import main as engine

    page = str(Path(skimage.__file__).parent / "data" / "page.png")
    expected = RapidOCR(params=SETTINGS)(page)
    assert len(expected.txts) >= 6
    with de.LocalPeers(2, cache_dir=tmp_path) as peers:
        with rapidocr_on(peers.cluster, policy="equal", cache_dir=tmp_path):
            reader = RapidOCR(params=SETTINGS)
            found = reader(page)
        sessions = [step.session.session for step in (reader.text_det, reader.text_cls, reader.text_rec)]
        try:
            assert found.txts == expected.txts
            np.testing.assert_allclose(found.boxes, expected.boxes, atol=1)
            for session in sessions:
                assert isinstance(session, de.InferenceSession)
                assert {task.device for task in session.plan.tasks} == {0, 1}
        finally:
            for session in sessions:
                session.close()
    assert engine.InferenceSession is onnxruntime.InferenceSession
