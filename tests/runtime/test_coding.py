"""How rows are coded: what comes back, what is refused, and when packing is left."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard

from distredge.errors import ProtocolError
from distredge.graph.rows import Rows
from distredge.plan.execution import TensorInfo, Transfer
from distredge.plan.wire import FP16, INT8, LOSSLESS, RAW
from distredge.runtime.coding import Coded, check_rows, decode_rows, encode_rows
from distredge.runtime.outgoing import ENDS, GRACE_S, HOPED_BYTES_PER_S, REPORTS, TRY_AGAIN, Worth

INFO = TensorInfo("float32", (1, 3, 8, 5), 2)
ROWS = Rows(2, 6)
SHAPE = INFO.part_shape(ROWS)
TRANSFERS = {coding: Transfer(0, "x", ROWS, 0, 1, 0, coding) for coding in (RAW, LOSSLESS, FP16, INT8)}


def drawn(seed: int = 0, dtype: str = "float32") -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(SHAPE) * [[[[1.0]], [[50.0]], [[1e-3]]]][0]
    return np.maximum(values, 0).astype(dtype)


def there_and_back(array: np.ndarray, coding: str, info: TensorInfo = INFO) -> np.ndarray:
    coded = encode_rows(array, coding, info)
    assert coded is not None
    assert coded.coding == coding
    check_rows(coded, TRANSFERS[coding], info)
    back = decode_rows(coded, info, ROWS)
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    return back


def test_packing_changes_no_bit() -> None:
    array = np.zeros(SHAPE, np.float32)
    array.reshape(-1)[:7] = [-0.0, np.nan, np.inf, -np.inf, 1e-45, 1.0, -1.5]
    array.view(np.uint32).reshape(-1)[8] = 0x7FC12345  # a NaN with something to say
    assert there_and_back(array, LOSSLESS).tobytes() == array.tobytes()


def test_what_packing_makes_no_smaller_is_left() -> None:
    noise = np.frombuffer(np.random.default_rng(0).bytes(240), np.float32).reshape(SHAPE)
    assert encode_rows(noise, LOSSLESS, INFO) is None


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_steps_of_each_channel_are_its_own(dtype: str) -> None:
    info = TensorInfo(dtype, INFO.shape, 2)
    array = drawn(dtype=dtype)
    back = there_and_back(array, INT8, info)
    for channel in range(3):
        got, want = back[0, channel].astype(float), array[0, channel].astype(float)
        step = (want.max() - want.min()) / 255
        assert np.abs(got - want).max() <= 0.51 * step + want.max() * np.finfo(dtype).eps
    assert (back[array == 0] == 0).all()


def test_a_flat_channel_comes_back_as_it_was() -> None:
    array = np.full(SHAPE, 3.25, np.float32)
    np.testing.assert_array_equal(there_and_back(array, INT8), array)


def test_halves() -> None:
    array = drawn()
    np.testing.assert_array_equal(there_and_back(array, FP16), array.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(("coding", "value"), [(FP16, 7e4), (FP16, np.nan), (INT8, np.inf), (INT8, np.nan)])
def test_what_cannot_be_rounded_is_left(coding: str, value: float) -> None:
    array = drawn()
    array[0, 1, 2, 3] = value
    assert encode_rows(array, coding, INFO) is None


def payloads() -> dict[str, Coded]:
    size = 4 * int(np.prod(SHAPE))
    pack = zstandard.ZstdCompressor().compress
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(size))
    return {
        "a bomb": Coded(LOSSLESS, pack(bytes(1 << 28))),
        "too short": Coded(LOSSLESS, pack(bytes(size - 4))),
        "of unknown size": Coded(LOSSLESS, unsized),
        "no smaller": Coded(LOSSLESS, pack(bytes(size)) + bytes(size)),
        "no frame": Coded(LOSSLESS, b"nonsense"),
        "empty": Coded(LOSSLESS, b""),
        "half of the halves": Coded(FP16, bytes(size // 4)),
        "no scales": Coded(INT8, bytes(size // 4)),
    }


@pytest.mark.parametrize("what", payloads())
def test_payloads_that_are_refused_before_they_take_memory(what: str) -> None:
    coded = payloads()[what]
    with pytest.raises(ProtocolError, match=r"packed|do not have"):
        check_rows(coded, TRANSFERS[coded.coding], INFO)


@pytest.mark.parametrize("planned", TRANSFERS)
@pytest.mark.parametrize("coding", [*TRANSFERS, "", "zip" * 1000])
def test_rows_come_as_the_plan_says_or_raw(planned: str, coding: str) -> None:
    if coding in (RAW, planned):
        return
    with pytest.raises(ProtocolError, match="not what the plan says"):
        check_rows(Coded(coding, b""), TRANSFERS[planned], INFO)


def test_damaged_frames_are_refused() -> None:
    coded = encode_rows(np.zeros(SHAPE, np.float32), LOSSLESS, INFO)
    assert coded is not None
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(coded.payload)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            rows = decode_rows(Coded(LOSSLESS, bytes(damaged)), INFO, ROWS)
            assert rows.shape == SHAPE
        except ProtocolError:
            refused += 1
    assert refused > 20


SIZE = 1_000_000


def test_nothing_is_packed_before_the_link_is_known() -> None:
    assert not any(Worth(SIZE).ask() for _ in range(10 * TRY_AGAIN))


def test_packing_begins_where_the_link_is_slow_and_ends_where_it_does_not_pay() -> None:
    worth = Worth(SIZE)
    worth.sent(SIZE)
    worth.arrived(0.16)  # 50 Mbit/s
    assert worth.ask()
    for _ in range(30):
        worth.packed(SIZE, 0.002)  # nothing was gained
    asked = [worth.ask() for _ in range(2 * TRY_AGAIN)]
    assert asked.count(True) == 2
    for _ in range(30):
        worth.packed(SIZE // 2, 0.002)
    assert worth.ask()


def test_a_fast_link_is_never_tried() -> None:
    worth = Worth(SIZE)
    worth.sent(SIZE)
    worth.arrived(SIZE / HOPED_BYTES_PER_S * ENDS)
    assert not any(worth.ask() for _ in range(2 * TRY_AGAIN))


def test_one_quick_message_shows_what_the_link_can_do() -> None:
    worth = Worth(SIZE)
    worth.sent(SIZE)
    for seconds in (0.16, 0.16, 0.003, 0.16, 0.16):
        worth.arrived(seconds)
    assert not worth.ask()
    for _ in range(REPORTS):
        worth.arrived(0.16)
    assert worth.ask()


def test_latency_is_no_reason_to_pack() -> None:
    worth = Worth(20_000)
    worth.sent(20_000)
    worth.arrived(GRACE_S)
    assert not worth.ask()


@pytest.mark.parametrize("seconds", [float("nan"), -1.0])
def test_nonsense_about_a_link_is_no_reason_to_pack(seconds: float) -> None:
    worth = Worth(SIZE)
    worth.sent(SIZE)
    worth.arrived(seconds)
    assert not worth.ask()
