"""Planted off-by-ones: for every row rule, and wherever rows are counted, `verify` must notice.

A check that cannot fail is worthless. Each case breaks one thing by one row, in the rule's class or in
what uses it, and runs `verify` on a small network in which that rule matters. Noticing means `ok` is
False, or an error on the way (a part of the wrong height is refused by the engine or by the wire).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from distredge.control.verify import verify
from distredge.graph import features, rules
from distredge.graph.importer import Model, load_model
from distredge.graph.rows import Crop, Edit, Rows, Taps
from tests.models import ModelBuilder
from tests.verify.blocks import BLOCKS
from tests.verify.random_networks import fully_connected

Needs = tuple[Rows | None, ...]


def noticed(model: Model, seed: int = 0) -> bool:
    """Whether verify sees that something is wrong."""
    try:
        return not verify(model, peers=3, strategies=4, seed=seed).ok
    except Exception:
        return True


def prepared(block: str) -> Model:
    """A window, the block, a window: a model that verifies as it stands."""
    if block == "features":
        return prepared_features()
    seed = 5 if block == "pad" else 1  # a Pad in mode "reflect", two rows above and two below
    choose = random.Random(seed)
    first, last = BLOCKS[block].opsets
    net = ModelBuilder(min(max(first, 17), last), seed)
    x = net.conv(net.input(1, 5, 24, 8), 4)
    x = BLOCKS[block].make(net, x, choose)
    net.output(net.conv(x, 3, 1))
    model = load_model(net.build())
    assert not noticed(model)
    return model


def prepared_features() -> Model:
    """Fully connected layers, as small as they are, shared out by features."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "LARGE_BYTES", 0)
        model = load_model(fully_connected(1).build())
    assert not noticed(model)
    return model


# ---------------------------------------------------------------------- rows that a rule needs


def changed_rows(change: Callable[[Rows], Rows]) -> Callable[[Needs], Needs]:
    def changed(needs: Needs) -> Needs:
        at = next((i for i, rows in enumerate(needs) if rows is not None), None)
        if at is None:
            return needs
        return (*needs[:at], change(needs[at]), *needs[at + 1 :])

    return changed


NEEDS = {
    "misses its first row": changed_rows(lambda r: Rows(r.start + 1, r.stop) if r.size > 1 else r),
    "misses its last row": changed_rows(lambda r: Rows(r.start, r.stop - 1) if r.size > 1 else r),
    "lies one row too high": changed_rows(lambda r: Rows(r.start - 1, r.stop - 1) if r.start else r),
    "lies one row too low": changed_rows(lambda r: Rows(r.start + 1, r.stop + 1) if r.start else r),
}

# rule class -> blocks in which it matters
RULES = {
    "WindowRule": [
        "conv", "conv_auto_pad", "conv_grouped", "conv_1d", "conv_3d", "max_pool", "average_pool", "lp_pool",
        "ceil_pool", "conv_integer", "qlinear_conv",
    ],
    "TransposedWindowRule": ["conv_transpose"],
    "PointwiseRule": ["activation", "broadcast_constants", "concat", "nhwc", "channel_shuffle", "expanded"],
    "GrowRule": ["depth_to_space", "merged_rows"],
    "ShrinkRule": ["space_to_depth", "pixel_unshuffle"],
    "SliceRule": ["stepped_slice", "focus"],
    "PadRule": ["pad"],
    "ShiftedResizeRule": ["upsample"],
    "TappedResizeRule": ["resize_antialias"],
    "FeatureRule": ["features"],
    "PartialRule": ["excitation", "reduced", "max_of_map", "group_norm"],
}  # fmt: skip


def test_every_rule_is_here() -> None:
    known = {name for name, kind in vars(rules).items() if isinstance(kind, type) and name.endswith("Rule")}
    assert known - {"WholeRule"} == set(RULES)


@pytest.mark.parametrize("planted", NEEDS)
@pytest.mark.parametrize(
    ("rule", "block"), [(rule, block) for rule, blocks in RULES.items() for block in blocks]
)
def test_needs(rule: str, block: str, planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepared(block)
    kind = getattr(rules, rule)
    whole = kind.needs

    def needs(self: Any, out: Rows) -> Needs:
        return NEEDS[planted](whole(self, out))

    monkeypatch.setattr(kind, "needs", needs)
    assert noticed(model)


# ---------------------------------------------------------------------- changes to the node


def bumped(values: Any, at: int, by: int) -> tuple[Any, ...]:
    return tuple(value + by if i == at else value for i, value in enumerate(values))


def pads_changed(top: bool, by: int) -> Callable[[Any, Edit | None], Edit | None]:
    """The pads that a window or Pad gets along the rows, off by `by` (never below zero)."""

    def changed(rule: Any, edit: Edit | None) -> Edit | None:
        if edit is None or not (edit.attributes or edit.constants):
            edit = replace(edit or Edit(), **unchanged_pads(rule))
        along = (
            rule.at[0 if top else 1] if isinstance(rule, rules.PadRule) else 0 if top else len(rule.pads) // 2
        )

        def moved(values: Any) -> Any:
            return bumped(values, along, by) if values[along] + by >= 0 else values

        attributes = tuple((n, moved(v) if n == "pads" else v) for n, v in edit.attributes)
        constants = tuple((i, kind, moved(v)) for i, kind, v in edit.constants)
        return replace(edit, attributes=attributes, constants=constants)

    return changed


def unchanged_pads(rule: Any) -> dict[str, Any]:
    """The part of an edit that leaves the pads as they are."""
    at = getattr(rule, "as_input", None)
    return (
        {"attributes": (("pads", rule.pads),)} if at is None else {"constants": ((at, "int64", rule.pads),)}
    )


def crop_changed(top: int, bottom: int) -> Callable[[Any, Edit | None], Edit | None]:
    """The rows dropped from the result, off by one; the number that stays may be right."""

    def changed(rule: Any, edit: Edit | None) -> Edit | None:
        if edit is None or edit.crop is None:
            return edit
        old = edit.crop
        if old.top + top < 0 or old.bottom + bottom < 0:
            return edit
        return replace(edit, crop=Crop(old.axis, old.top + top, old.bottom + bottom))

    return changed


def taps_changed(by: int) -> Callable[[Any, Edit | None], Edit | None]:
    """Interpolation that reads one row beside the right one."""

    def changed(rule: Any, edit: Edit | None) -> Edit | None:
        if edit is None or edit.taps is None:
            return edit
        last = max(max(rows) for rows in edit.taps.rows)
        moved = tuple(tuple(min(max(r + by, 0), last) for r in rows) for rows in edit.taps.rows)
        return replace(edit, taps=Taps(edit.taps.axis, moved, edit.taps.weights))

    return changed


def no_edit(rule: Any, edit: Edit | None) -> None:
    return None


EDITS = [
    *((rule, block, f"pads at the {'top' if top else 'bottom'} {by:+d}", pads_changed(top, by))
      for rule, block in (("WindowRule", "conv"), ("WindowRule", "max_pool"), ("WindowRule", "average_pool"),
                          ("TransposedWindowRule", "conv_transpose"), ("PadRule", "pad"))
      for top in (True, False) for by in (-1, 1)),
    *((rule, block, f"crop {top:+d} {bottom:+d}", crop_changed(top, bottom))
      for rule, block in (("GrowRule", "depth_to_space"), ("ShiftedResizeRule", "upsample"))
      for top, bottom in ((1, 0), (0, 1), (-1, 0), (0, -1), (1, -1), (-1, 1))),
    *(("TappedResizeRule", "resize_antialias", f"taps {by:+d}", taps_changed(by)) for by in (-1, 1)),
    *((rule, block, "no edit", no_edit) for rule, block in (
        ("WindowRule", "conv"), ("TransposedWindowRule", "conv_transpose"), ("PadRule", "pad"),
        ("SliceRule", "stepped_slice"), ("GrowRule", "depth_to_space"), ("GrowRule", "merged_rows"),
        ("ShrinkRule", "pixel_unshuffle"), ("ShiftedResizeRule", "upsample"),
        ("TappedResizeRule", "resize_antialias"), ("PointwiseRule", "channel_shuffle"))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "block", "change"), [case[:2] + case[3:] for case in EDITS], ids=["-".join(c[:3]) for c in EDITS]
)
def test_edit(rule: str, block: str, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepared(block)
    kind = getattr(rules, rule)
    whole = kind.edit
    monkeypatch.setattr(kind, "edit", lambda self, out: change(self, whole(self, out)))
    assert noticed(model)


# ---------------------------------------------------------------------- whoever else counts rows


def windows() -> Model:
    """Convolutions, a pool and two branches."""
    net = ModelBuilder(17)
    x = net.conv(net.input(1, 5, 24, 8), 4)
    x = net.add("Add", net.conv(net.conv(x, 4), 4), net.conv(x, 4, 1))
    x = net.conv(net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 3)
    net.output(x)
    model = load_model(net.build())
    assert not noticed(model)
    return model


def shifted(rows: Rows, top: int, bottom: int, height: int) -> Rows:
    moved = Rows(max(0, rows.start + top), min(height, rows.stop + bottom))
    return moved if rows else rows


@pytest.mark.parametrize(("top", "bottom"), [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1)])
@pytest.mark.parametrize("block", ["excitation", "reduced_without_axes", "instance_norm", "average_of_map"])
def test_owned_rows_of_a_reduction(
    block: str, top: int, bottom: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each device adds up one row too many, or too few, of what is reduced."""
    model = prepared(block)
    whole = rules.PartialRule.needs

    def needs(self: Any, out: Rows) -> Needs:
        return changed_rows(lambda rows: shifted(rows, top, bottom, 24))(whole(self, out))

    monkeypatch.setattr(rules.PartialRule, "needs", needs)
    assert noticed(model)


def test_halo_in_a_reduction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices reduce all rows that they hold of a tensor, those they recompute for a window included."""
    net = ModelBuilder(17)
    x = net.conv(net.input(1, 5, 24, 8), 4)
    gate = net.conv(net.add("GlobalAveragePool", x), 4, 1)
    net.output(net.add("Mul", net.conv(x, 4), gate))
    model = load_model(net.build())
    assert not noticed(model)
    from distredge.plan import compile as compiler

    whole = compiler._Compiler._node_part

    def part(self: Any, i: int, demand: Any, present: Any) -> Any:
        made = whole(self, i, demand, present)
        return replace(made, crops=(None,)) if made.form == "partial" else made

    monkeypatch.setattr(compiler._Compiler, "_node_part", part)
    assert noticed(model)


@pytest.mark.parametrize(("top", "bottom"), [(1, 0), (0, 1), (-1, 0), (0, -1)])
def test_crop_of_an_input(top: int, bottom: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node in a part reads one row beside those it needs: what a tensor has for another reader's halo."""
    model = windows()
    from distredge.plan import compile as compiler

    whole = compiler._Compiler._node_part

    def part(self: Any, i: int, demand: Any, present: Any) -> Any:
        made = whole(self, i, demand, present)
        crops = tuple(
            crop and Crop(crop.axis, max(0, crop.top + top), max(0, crop.bottom + bottom))
            for crop in made.crops
        )
        return replace(made, crops=crops)

    monkeypatch.setattr(compiler._Compiler, "_node_part", part)
    assert noticed(model)


def test_branches_that_forget_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where branches meet, the first one's demand alone is met."""
    model = windows()
    monkeypatch.setattr(Rows, "hull", lambda self, other: self or other)
    assert noticed(model, seed=1)


def test_overlap_of_owned_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part owns a row of its neighbour's too."""
    model = windows()
    from distredge.plan.strategy import SplitDecision

    whole = SplitDecision.part
    monkeypatch.setattr(
        SplitDecision, "part", lambda self, device: shifted(whole(self, device), 0, 1, self.rows)
    )
    assert noticed(model)


@pytest.mark.parametrize("by", [-1, 1])
def test_pieces_assembled_one_row_off(by: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = windows()
    from distredge.runtime.engine import FrameStore

    whole = FrameStore._piece

    def piece(self: Any, frame: int, tensor: str, wanted: Any) -> Any:
        made = self._made.get((wanted.task, tensor))
        if made and (made.start if by < 0 else wanted.rows.stop) < (
            wanted.rows.start if by < 0 else made.stop
        ):
            wanted = replace(wanted, rows=Rows(wanted.rows.start + by, wanted.rows.stop + by))
        return whole(self, frame, tensor, wanted)

    monkeypatch.setattr(FrameStore, "_piece", piece)
    assert noticed(model)


def test_partials_of_one_device_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepared("excitation")
    from distredge.runtime.engine import FrameStore

    whole = FrameStore.assemble

    def assemble(self: Any, frame: int, wanted: Any) -> Any:
        array = whole(self, frame, wanted)
        if wanted.tensor.endswith(".partials") and len(array) > 1:
            array = array.copy()
            array[0] = array[1]
        return array

    monkeypatch.setattr(FrameStore, "assemble", assemble)
    assert noticed(model)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", ["conv", "excitation"])
def test_import_that_pads_at_the_wrong_end(block: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the importer is in every part alike; only the user's own model knows better.

    One strategy at a time: exact sums, which start from the imported model, must excuse none of them.
    """
    from distredge.graph import importer, rewrite

    whole = rewrite.rewrite

    def wrong(draft: Any) -> None:
        whole(draft)
        for node in draft.nodes:
            pads = list(rewrite.attributes_of(node).get("pads") or ())
            if len(pads) == 4 and pads[0] > pads[2]:
                rewrite.set_attribute(node, "pads", (pads[0] - 1, pads[1], pads[2] + 1, pads[3]))

    net = ModelBuilder(17, 1)
    x = net.conv(net.input(1, 5, 24, 8), 4, auto_pad="SAME_LOWER", strides=[2, 2], kernel=(5, 3))
    net.output(net.conv(BLOCKS[block].make(net, x, random.Random(1)), 3, 1))
    assert verify(load_model(net.build()), peers=3, strategies=1, seed=seed).ok
    monkeypatch.setattr(importer, "rewrite", wrong)
    assert not verify(load_model(net.build()), peers=3, strategies=1, seed=seed).ok
