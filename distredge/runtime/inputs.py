"""What `--input` names: a picture, an array, or several arrays by input name."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distredge.errors import InputError
from distredge.files import written_whole
from distredge.graph.importer import Model
from distredge.graph.model import Tensor
from distredge.runtime.engine import Array, numpy_dtype
from distredge.runtime.feeds import check_feed

_CHANNELS = (1, 3)


def read_arrays(path: str, names: tuple[str, ...]) -> dict[str, Array] | None:
    """The arrays of a .npy or .npz file by input name; None if the file is neither and so a picture.

    Raises:
        InputError: the file cannot be read, or its names are not the model's.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"--input {path}: it is a folder; give a file", path=path)
    if not file.is_file():
        raise InputError(f"--input {path}: there is no such file", path=path)
    if file.suffix not in (".npy", ".npz"):
        return None
    try:
        loaded: Any = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            with loaded:
                return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise InputError(f"--input {path}: cannot be read: {error.strerror or error}", path=path) from None
    except (ValueError, EOFError, zipfile.BadZipFile):
        # numpy's own text speaks of pickles, which nobody asked for
        text = "is damaged, or holds something else than arrays of numbers or text"
        raise InputError(f"--input {path}: {text}", path=path) from None
    if len(names) != 1:
        text = f"the model has the inputs {', '.join(names)}; put an array for each into a .npz"
        raise InputError(f"--input {path}: {text}", path=path)
    return {names[0]: loaded}


def read_feed(path: str, model: Model) -> dict[str, Array]:
    """A file's arrays, or the picture that it is, as a feed of a model in the size that it was imported in.

    Raises:
        InputError: it is neither, or does not fit the model.
    """
    tensors = {name: model.graph.tensors[name] for name in model.graph.inputs}
    arrays = read_arrays(path, tuple(tensors))
    if arrays is None:
        return read_picture(path, tensors)
    feed = check_feed(model.input_infos, arrays)
    for name, array in feed.items():
        if name in tensors and array.shape != tensors[name].shape:
            shapes = ["x".join(map(str, each.shape)) for each in (array, tensors[name])]
            raise InputError(
                f"--input {path}: input {name!r} is {shapes[0]}, and the model was imported for {shapes[1]}"
            )
    return feed


def read_picture(path: str, inputs: Mapping[str, Tensor]) -> dict[str, Array]:
    """A picture as the model's only input: scaled to its size, channels in RGB order, and values from 0 to 1,
    or from 0 to 255 where the model takes uint8.

    Raises:
        InputError: it is no picture, the model takes none, or pillow is missing.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InputError(
            f"--input {path}: reading pictures needs the package pillow; pip install pillow, or give a .npy"
        ) from None
    if len(inputs) != 1:
        raise InputError(f"--input {path}: the model has {len(inputs)} inputs; give a .npz with all of them")
    ((name, tensor),) = inputs.items()
    shape = tensor.shape
    last = len(shape) == 4 and shape[1] not in _CHANNELS and shape[3] in _CHANNELS
    if len(shape) != 4 or not (last or shape[1] in _CHANNELS):
        size = "x".join(map(str, shape))
        raise InputError(f"--input {path}: input {name!r} of shape {size} takes no picture; give a .npy")
    channels, height, width = (shape[3], *shape[1:3]) if last else shape[1:]
    try:
        with Image.open(path) as picture:
            scaled = picture.convert("L" if channels == 1 else "RGB").resize((width, height))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"--input {path}: cannot be read as a picture: {error}", path=path) from None
    pixels = np.asarray(scaled, dtype=np.uint8).reshape(height, width, channels)
    if not last:
        pixels = pixels.transpose(2, 0, 1)
    dtype = numpy_dtype(tensor.dtype)
    values = pixels.astype(dtype) if dtype.kind in "iu" else (pixels.astype(np.float32) / 255).astype(dtype)
    return {name: np.ascontiguousarray(np.broadcast_to(values, shape))}


def check_output(path: str) -> None:
    """Refuses where nothing can be written, before hours of work go into what should be.

    Raises:
        InputError: the folder is missing, or the file is none.
    """
    file = Path(path)
    if file.is_dir() or not file.parent.is_dir():
        problem = "is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise InputError(f"--output {path}: cannot be written: {problem}", path=path)


def write_outputs(path: str, names: list[str], outputs: list[Array]) -> None:
    """Writes arrays by name as a .npz. (`numpy.savez` takes some names for its own arguments.)

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with written_whole(Path(path)) as part, zipfile.ZipFile(part, "w") as archive:
            for name, array in zip(names, outputs, strict=True):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"--output {path}: cannot be written: {error}", path=path) from None
