"""What all programs on a host share."""

import json
import os

MARK = ".distredge"


class Refusal(Exception):
    """Something that the user must know or change; its text is the answer."""


def expand(folder):
    return os.path.abspath(os.path.expanduser(folder))


def read_text(path):
    """The file's text; empty if it cannot be read."""
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def is_deployed(folder):
    return os.path.exists(os.path.join(folder, MARK))


def current_release(folder):
    try:
        return os.path.basename(os.readlink(os.path.join(folder, "current")))
    except OSError:
        return ""


def release_facts(folder, release="current"):
    path = os.path.join(folder, release if release == "current" else f"releases/{release}", "complete")
    return json.loads(read_text(path) or "{}")


def own_places(folder):
    """Environment in which a program leaves nothing outside the deploy folder.

    onnxruntime writes a device id and a session file, wherever these say.
    """
    temporary = os.path.join(expand(folder), "tmp")
    os.makedirs(temporary, exist_ok=True)
    return {"XDG_CACHE_HOME": os.path.join(expand(folder), "cache"), "TMPDIR": temporary}
