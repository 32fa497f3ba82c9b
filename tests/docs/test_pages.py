"""What README and documentation tell a newcomer to type is typed here: `sh` and `python` blocks, in order.

`console` blocks are for people's own devices. A comment in front of a block says what is given where it is
run (`<!-- given: PYTHON -->`), or why it is not (`<!-- not run: TEST does it -->`). docs/cluster.md is walked
through, on emulated boards, by tests/launch/test_four_hosts.py.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distredge.cli import main
from distredge.graph import zoo
from distredge.runtime.launcher import LocalPeers
from tests.docs.messages import ROOT

BLOCK = re.compile(r"(?:<!-- (given|not run): ([^\n]+?) -->\n)?```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUN = ("README.md", "docs/index.md", "docs/clients.md", "docs/deploying.md")
ELSEWHERE = {"docs/cluster.md"}


@dataclass(frozen=True)
class Block:
    """One block of a page, and what stands in front of it."""

    kind: str
    about: str
    language: str
    text: str

    @property
    def is_run(self) -> bool:
        return self.language in ("sh", "python") and self.kind != "not run"


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall((ROOT / page).read_text())]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A newcomer's folder, with the hosts file of two running peers and a model in it."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"DISTREDGE_CACHE": str(tmp_path / "cache"), "DISTREDGE_PEERS": ""}.items():
        monkeypatch.setenv(name, value)
    zoo.write(zoo.get("squeezenet").build(), tmp_path / "model.onnx")
    with LocalPeers(2, cache_dir=tmp_path / "cache") as peers:
        sections = [
            f"[provider:{peer.name}]\naddress = {peer.address.removeprefix('tcp://')}\n"
            for peer in peers.wait_ready()
        ]
        (tmp_path / "hosts.ini").write_text("\n".join(sections))
        yield tmp_path


@pytest.mark.parametrize("page", RUN)
def test_every_block_works(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = [block for block in blocks(page) if block.is_run]
    assert run
    for block in run:
        if block.language == "sh":
            for line in block.text.splitlines():
                words = shlex.split(line, comments=True)
                assert words[0] == "distredge", f"{page}: only distredge's own commands are run: {line}"
                assert main(words[1:]) == 0, (line, capsys.readouterr().err)
        else:
            names: dict[str, Any] = {"np": np, "os": os, "main": main}
            exec(block.about, names)
            exec(block.text, names)


def test_no_block_is_left_out() -> None:
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")} | {"README.md"}
    assert {page for page in pages if any(b.is_run for b in blocks(page))} - ELSEWHERE == set(RUN)
    reasons = [b.about for page in pages for b in blocks(page) if b.kind == "not run"]
    assert all((ROOT / reason.split()[0]).exists() for reason in reasons), (
        "a reason begins with the test that does it"
    )


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_no_link_is_dead(page: str) -> None:
    """Links of the site itself are checked by `make docs`, which is strict."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)", (ROOT / page).read_text())
    assert len(links) >= 2
    assert not [link for link in links if not (ROOT / link).exists()]
