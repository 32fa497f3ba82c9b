"""Weights files of these tests go to a folder of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("DISTREDGE_CACHE")
    os.environ["DISTREDGE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["DISTREDGE_CACHE"]
    else:
        os.environ["DISTREDGE_CACHE"] = before
