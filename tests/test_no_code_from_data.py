"""Nothing in the project turns data into code: no pickle, no eval, no shell command built from strings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("distredge", "policies", "launch", "benchmarks")
FILES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]

MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
    "yaml",
    "pty",
}
CALLS = {"eval", "exec", "__import__"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
LOADERS = {
    "np.load": ("allow_pickle", "False"),
    "numpy.load": ("allow_pickle", "False"),
    "torch.load": ("weights_only", "True"),
}
"""What unpickles unless told otherwise, and what tells it."""

# What stays, and why: file -> findings.
ALLOWED = {
    # the project's own sources, sent over SSH to a host that has nothing of ours yet
    "launch/session.py": {"exec in a string"},
}


def findings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {a.name}" for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in MODULES:
                yield f"import {node.module}"
        elif isinstance(node, ast.Call):
            yield from call_findings(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            yield from string_findings(node.value)


def call_findings(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in CALLS or name in SHELLS:
        yield name
    if arguments.get("shell", "False") != "False":
        yield f"{name} with a shell"
    if name in LOADERS and arguments.get(LOADERS[name][0]) != LOADERS[name][1]:
        yield f"{name} that may unpickle"
    # what SSH runs on a host is a shell's command line by its nature
    if name.endswith(".exec_command") and not ast.unparse(call.args[0]).startswith("shlex.join("):
        yield f"{name} without shlex.join"


def string_findings(text: str) -> Iterator[str]:
    """In programs that are kept as strings, to be sent to hosts."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return  # it is prose
    yield from (f"{found} in a string" for found in findings(tree))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_code_from_data(file: Path) -> None:
    found = set(findings(ast.parse(file.read_text())))
    assert found == ALLOWED.get(str(file.relative_to(ROOT)), set())


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from marshal import loads",
        "eval(x)",
        "exec(x)",
        "os.system(x)",
        "subprocess.run(x, shell=True)",
        "subprocess.Popen(x, shell=y)",
        "np.load(x)",
        "np.load(x, allow_pickle=True)",
        "torch.load(x)",
        "channel.exec_command(f'ls {x}')",
        "CODE = '''\nimport pickle\n'''",
    ],
)
def test_each_kind_is_found(code: str) -> None:
    assert list(findings(ast.parse(code)))
