"""What the demo draws over its input: the text that was found, and who computed which rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distredge.demo.page import Array
from distredge.graph.rows import Rows
from distredge.plan.execution import REQUESTER, ExecutionPlan

COLOURS = ((214, 72, 54), (52, 120, 196), (74, 160, 84), (150, 96, 180), (214, 148, 40))


def input_rows(plan: ExecutionPlan) -> list[tuple[str, Rows]]:
    """Rows of the first input that each device was sent, halo included."""
    name = plan.inputs[0]
    sent = {device: Rows(0, 0) for device in plan.devices}
    for transfer in plan.transfers:
        if transfer.source == REQUESTER and transfer.tensor == name:
            device = plan.devices[transfer.target]
            sent[device] = sent[device].hull(transfer.rows)
    return list(sent.items())


def draw_result(
    picture: Array,
    boxes: Sequence[tuple[int, int, int, int]],
    rows: Sequence[tuple[str, Rows]],
    path: Path,
) -> None:
    """Writes the input with the detected text regions, and a coloured band for each peer's rows.

    Args:
        picture: RGB uint8 (H, W, 3).
        boxes: text regions (left, top, right, bottom).
        rows: peers and their rows of the input; where two bands overlap, both peers compute.
        path: of the PNG.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture).convert("RGBA")
    tint = Image.new("RGBA", image.size)
    brush = ImageDraw.Draw(tint)
    for at, (name, band) in enumerate(rows):
        if not band:
            continue
        colour = COLOURS[at % len(COLOURS)]
        brush.rectangle((0, band.start, image.width, band.stop), fill=(*colour, 36))
        brush.rectangle((image.width - 12, band.start, image.width, band.stop - 1), fill=(*colour, 255))
        label = f"{name}: rows {band.start} to {band.stop}"
        at_top = brush.textbbox((image.width - 220, band.start + 6), label)
        brush.rectangle(
            (at_top[0] - 4, at_top[1] - 3, at_top[2] + 4, at_top[3] + 3), fill=(255, 255, 255, 230)
        )
        brush.text((image.width - 220, band.start + 6), label, fill=(*colour, 255))
    image = Image.alpha_composite(image, tint)
    brush = ImageDraw.Draw(image)
    for box in boxes:
        brush.rectangle(box, outline=(200, 30, 90, 255), width=2)
    image.convert("RGB").save(path)
