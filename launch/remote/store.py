"""The deploy folder: its lock, the files sent to it, the environments made of them."""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

from launch.remote.basics import (
    MARK,
    Refusal,
    current_release,
    expand,
    is_deployed,
    own_places,
    read_text,
    release_facts,
)
from launch.remote.peers import runs, stop


def lock(folder, holder):
    """Takes the deploy folder for this agent alone, until it ends."""
    folder = expand(folder)
    if os.path.isdir(folder) and os.listdir(folder) and not is_deployed(folder):
        raise Refusal(f"{folder} is not empty and no deployment of ours; name another deploy_dir")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with open(os.path.join(folder, MARK), "a"):
        pass
    file = open(os.path.join(folder, ".lock"), "a+")  # noqa: SIM115 (held until this process ends)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        raise Refusal(f"locked by {file.read().strip() or 'another controller'}; wait for it") from None
    file.truncate(0)
    file.write(holder)
    file.flush()
    HELD.append(file)


HELD = []


def missing(folder, files, shelf=""):
    """Names, out of {name: sha256}, of those that are not here complete."""
    return [
        name for name, digest in files.items() if not os.path.exists(place_of(folder, name, digest, shelf))
    ]


def place_of(folder, name, digest, shelf=""):
    """Where a file is kept: by content, or with others that it belongs to on a shelf such as `models/ID`."""
    if not re.fullmatch(r"[A-Za-z0-9_.+!-]+", name) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise Refusal(f"{name!r} is no file name; rename it to letters, digits and '_.+!-'")
    if not re.fullmatch(r"(models/[0-9a-f]+)?", shelf):
        raise Refusal(f"{shelf!r} is no shelf")
    return os.path.join(expand(folder), shelf or f"wheels/{digest}", name)


def put(source, folder, name, digest, size, shelf=""):
    """Receives a file. All its bytes are read even if they cannot be kept."""
    failure, path = None, ""
    try:
        path = place_of(folder, name, digest, shelf)
    except Refusal as error:
        failure = error
    left, hashed, target = size, hashlib.sha256(), None
    try:
        if failure is None:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            target = open(f"{path}.part", "wb")  # noqa: SIM115 (its closing may fail, too)
    except OSError as error:
        failure = error
    while left:
        data = source.read(min(left, 1 << 20))
        if not data:
            raise EOFError
        left -= len(data)
        hashed.update(data)
        if failure is None:
            try:
                target.write(data)
            except OSError as error:
                failure = error
    if target is not None:
        try:
            target.close()
        except OSError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    if hashed.hexdigest() != digest:
        raise Refusal(f"{name} arrived damaged; try again")
    os.replace(f"{path}.part", path)


def build(folder, release, wheels, installer, about):
    """Makes a virtual environment of these wheels ({name: sha256}); a half-made one is made anew."""
    folder = expand(folder)
    place = os.path.join(folder, "releases", release)
    if os.path.exists(os.path.join(place, "complete")):
        return
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    quiet_run([sys.executable, "-m", "venv", "--without-pip", place], "venv")
    python = os.path.join(place, "bin", "python")
    pip = place_of(folder, *installer)
    if borrow(folder, place, about):
        wheels = {about["own"]: wheels[about["own"]]}
    paths = [place_of(folder, name, digest) for name, digest in wheels.items()]
    options = ["--no-index", "--no-deps", "--no-compile", "--no-warn-script-location", "--no-cache-dir"]
    options += ["--disable-pip-version-check", "--quiet", "--isolated"]
    quiet_run([python, os.path.join(pip, "pip"), "install", *options, *paths], "pip")
    with open(os.path.join(place, "complete.new"), "w") as file:
        json.dump(about, file)
    os.replace(os.path.join(place, "complete.new"), os.path.join(place, "complete"))


def borrow(folder, place, about):
    """Links what others have made out of the current environment, if it is the same. Whether it was."""
    current = release_facts(folder)
    if not current or current.get("others") != about["others"]:
        return False
    pattern = os.path.join("lib", "python3*", "site-packages")
    old, new = (glob.glob(os.path.join(at, pattern)) for at in (os.path.join(folder, "current"), place))
    if len(old) != 1 or len(new) != 1:
        return False
    records = glob.glob(os.path.join(old[0], "distredge-*.dist-info", "RECORD"))
    ours = {line.split("/")[0] for path in records for line in read_text(path).splitlines()}
    for name in set(os.listdir(old[0])) - ours:
        source, target = os.path.join(old[0], name), os.path.join(new[0], name)
        if os.path.isdir(source):
            shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)
        elif not os.path.exists(target):
            os.link(source, target)
    return True


def quiet_run(argv, what):
    temporary = os.path.dirname(argv[-1]) if what == "venv" else None
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        if any("No space left" in line or "Errno 28" in line for line in said):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), temporary)
        raise Refusal(f"{what} failed: {said[-1] if said else done.returncode}")


def switch(folder, release):
    """Makes a complete release the current one, and removes releases and wheels that nothing needs."""
    folder = expand(folder)
    temporary = os.path.join(folder, "current.new")
    with contextlib.suppress(FileNotFoundError):
        os.remove(temporary)
    os.symlink(os.path.join("releases", release), temporary)
    os.replace(temporary, os.path.join(folder, "current"))
    in_use = {release, *(run.get("release", "") for run in runs(folder).values())}
    for name in os.listdir(os.path.join(folder, "releases")):
        if name not in in_use:
            shutil.rmtree(os.path.join(folder, "releases", name))
    needed = set(release_facts(folder).get("wheels", ()))
    for digest in os.listdir(os.path.join(folder, "wheels")):
        if digest not in needed:
            shutil.rmtree(os.path.join(folder, "wheels", digest))


def roll_back(folder):
    """After a failure: removes what the deployed release does not need; all, if there is none."""
    folder = expand(folder)
    if not is_deployed(folder):
        return
    if current_release(folder):
        switch(folder, current_release(folder))
    else:
        shutil.rmtree(folder)


def write_files(folder, files, only_in=""):
    """Small text files, {path: [text, mode]}, each written at once; returns those that changed.

    In the folder `only_in`, all others are removed.
    """
    place = os.path.join(expand(folder), only_in)
    changed = []
    for name in os.listdir(place) if only_in and os.path.isdir(place) else ():
        if f"{only_in}/{name}" not in files:
            os.remove(os.path.join(place, name))
            changed.append(f"{only_in}/{name}")
    for path, (text, mode) in files.items():
        full = os.path.join(expand(folder), path)
        if os.path.exists(full) and read_text(full) == text and os.stat(full).st_mode & 0o777 == mode:
            continue
        os.makedirs(os.path.dirname(full), exist_ok=True)
        handle = os.open(f"{full}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(handle, "w") as file:
            file.write(text)
        os.chmod(f"{full}.new", mode)
        os.replace(f"{full}.new", full)
        changed.append(path)
    return changed


def profile(folder, model, shelf, words, timeout_s=900):
    """Measures this host on a model that was sent; the profile and the command's own summary."""
    folder = expand(folder)
    python = os.path.join(folder, "current", "bin", "python")
    if not os.path.exists(python):
        raise Refusal("nothing is deployed; run fab deploy")
    with tempfile.TemporaryDirectory(dir=folder, prefix="profile-") as temporary:
        output = os.path.join(temporary, "profile.json")
        argv = [python, "-I", "-m", "distredge", "profile", os.path.join(folder, shelf, model), *words]
        environment = {**os.environ, **own_places(folder)}
        argv += ["--output", output, "--json"]
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=environment,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise Refusal(f"measuring took more than {timeout_s} s; lower --budget-s") from None
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise Refusal(said[-1].removeprefix("distredge: error: ") if said else "measuring failed")
        return {"row": json.loads(done.stdout.splitlines()[-1]), "profile": json.loads(read_text(output))}


def python_run(folder, code, arguments, timeout_s=120):
    """Runs code with the deployed environment's interpreter; it prints one line of JSON."""
    python = os.path.join(expand(folder), "current", "bin", "python")
    if not os.path.exists(python):
        raise Refusal("nothing is deployed; run fab deploy")
    try:
        done = subprocess.run(
            [python, "-I", "-c", code, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, **own_places(folder)},
        )
    except subprocess.TimeoutExpired:
        raise Refusal(f"no answer within {timeout_s} s") from None
    if done.returncode:
        raise Refusal((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def undeploy(folder):
    """Stops every peer and removes the deploy folder. Returns whether there was anything."""
    folder = expand(folder)
    if not is_deployed(folder):
        if os.path.isdir(folder) and os.listdir(folder):
            raise Refusal(f"{folder} is no deployment of ours; nothing was removed")
        return False
    written = glob.glob(os.path.join(folder, "log", "*.log"))
    started = {os.path.basename(path)[: -len(".log")] for path in written}
    for name in {*runs(folder), *started}:
        stop(folder, name)
    shutil.rmtree(folder)
    return True
