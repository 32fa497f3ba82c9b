"""`InferenceSession.stream`: many frames, several under way."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from distredge.errors import InputError
from distredge.runtime.session import InferenceSession
from tests.models import ModelBuilder, branches
from tests.runtime.support import RNG, agree, image, whole


@pytest.mark.parametrize("in_flight", [1, 3, 40])
def test_a_stream_answers_in_order(session: InferenceSession, in_flight: int) -> None:
    images = [image() for _ in range(20)]
    answers = list(session.stream(images, in_flight))
    assert len(answers) == 20
    for x, outputs in zip(images, answers, strict=True):
        agree(outputs, whole(branches(), {"x0": x}))


def test_a_stream_takes_no_more_images_than_are_in_flight(session: InferenceSession) -> None:
    taken = 0

    def images() -> Iterator[dict[str, np.ndarray]]:
        nonlocal taken
        for _ in range(10):
            taken += 1
            yield {"x0": image()}

    for answered, _ in enumerate(session.stream(images(), in_flight=3)):
        assert taken - answered <= 3
    assert taken == 10


def test_an_image_may_change_after_it_was_taken(session: InferenceSession) -> None:
    x = image()
    kept: list[np.ndarray] = []

    def camera() -> Iterator[np.ndarray]:
        for _ in range(30):
            x[:] = RNG.standard_normal(x.shape)
            kept.append(x.copy())
            yield x

    for at, outputs in enumerate(session.stream(camera(), in_flight=8)):
        agree(outputs, whole(branches(), {"x0": kept[at]}))


def test_so_may_an_image_that_is_sent_whole(cache: Path) -> None:
    x, kept = np.empty((1, 3, 200, 100), "float32"), []
    net = ModelBuilder()
    net.output(net.relu(net.input(1, 3, 200, 100)))

    def camera() -> Iterator[np.ndarray]:
        for _ in range(20):
            x[:] = RNG.standard_normal(x.shape)
            kept.append(np.maximum(x, 0))
            yield x

    with InferenceSession(net.build(), local_peers=1, policy="equal", cache_dir=cache) as session:
        for at, (got,) in enumerate(session.stream(camera(), in_flight=8)):
            np.testing.assert_array_equal(got, kept[at])


def test_a_stream_without_order_answers_each_once(session: InferenceSession) -> None:
    images = [image() for _ in range(12)]
    expected = [whole(branches(), {"x0": x})[0] for x in images]
    left = list(range(12))
    for outputs in session.stream(images, in_flight=5, ordered=False):
        at = min(left, key=lambda i: float(np.abs(outputs[0] - expected[i]).max()))
        np.testing.assert_allclose(outputs[0], expected[at], atol=1e-4)
        left.remove(at)
    assert not left


def test_a_stream_that_is_left_early_leaves_nothing(session: InferenceSession) -> None:
    for outputs in session.stream((image() for _ in range(100)), in_flight=6):
        assert outputs
        break
    gc.collect()
    assert not session._client.lines.frames.open
    agree(session.run(None, {"x0": (x := image())}), whole(branches(), {"x0": x}))
    assert not session._client.lines.frames.finished


def test_what_the_images_raise_goes_through(session: InferenceSession) -> None:
    def images() -> Iterator[np.ndarray]:
        yield image()
        raise KeyError("camera unplugged")

    with pytest.raises(KeyError, match="unplugged"):
        list(session.stream(images()))
    with pytest.raises(InputError, match="shape"):
        list(session.stream([image(), image(5)]))
    assert list(session.stream([])) == []
    with pytest.raises(InputError, match="in_flight"):
        session.stream([], in_flight=0)


def test_run_within_a_stream(session: InferenceSession) -> None:
    images = [image() for _ in range(6)]
    for x, outputs in zip(images, session.stream(images, in_flight=4), strict=True):
        y = image()
        agree(session.run(None, {"x0": y}), whole(branches(), {"x0": y}))
        agree(outputs, whole(branches(), {"x0": x}))


def test_several_threads_may_call(session: InferenceSession) -> None:
    wrong: list[object] = []

    def work() -> None:
        for _ in range(10):
            x = image()
            try:
                agree(session.run(None, {"x0": x}), whole(branches(), {"x0": x}))
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
