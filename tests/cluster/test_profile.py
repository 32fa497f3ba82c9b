"""Measured profiles: kept samples, interpolation, and what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from distredge.cluster.hosts import Provider
from distredge.cluster.load import compute_times
from distredge.cluster.machine import Machine, cpu_quota, this_machine
from distredge.cluster.profile import DeviceProfile, SegmentSamples, load_profile
from distredge.errors import ProfileError

FIRST, SECOND = (0, 1), (2, 3)


@pytest.fixture
def profile(graph) -> DeviceProfile:
    first = SegmentSamples(FIRST, {2: (0.2, 0.4, 0.3), 10: (1.0, 1.2, 0.9), 4: (0.3, 0.3, 0.6)})
    second = SegmentSamples(SECOND, {1: (0.1,), 5: (0.5,)})
    segments = {FIRST: first, SECOND: second}
    machine = "aarch64, Pi, 4 cores"
    return DeviceProfile("pi", "small", graph.digest, machine, 2, "CPUExecutionProvider", segments)


def test_medians_are_kept_and_interpolated(profile):
    # medians: 2 rows 0.3, 4 rows 0.3, 10 rows 1.0
    assert profile.table(FIRST, 10) == pytest.approx(
        [0, 0.3, 0.3, 0.3, 0.3, *(0.3 + 0.7 * i / 6 for i in range(1, 7))]
    )
    assert profile.seconds(FIRST, 7) == pytest.approx(0.65)
    assert profile.seconds([2, 3], 0) == 0


def test_spread(profile):
    low, high = (profile.table(FIRST, 10, q) for q in (0.1, 0.9))
    assert low[0] == high[0] == 0
    assert np.all(low[1:] < profile.table(FIRST, 10)[1:] + 1e-12)
    assert high[10] == pytest.approx(np.quantile([1.0, 1.2, 0.9], 0.9))


def test_asking_for_more_than_was_measured(profile):
    with pytest.raises(
        ProfileError, match="profile of pi: a segment was measured up to 5 rows, not 6; measure"
    ):
        profile.seconds(SECOND, 6)
    with pytest.raises(ProfileError, match="holds no segment of nodes 0 to 2; run `distredge profile` again"):
        profile.seconds([0, 1, 2], 1)


def test_saved_profiles_read_back(profile, tmp_path, graph):
    file = tmp_path / "pi.json"
    profile.save(file)
    read = load_profile(file)
    assert read.segments == profile.segments
    assert {**vars(read), "path": ""} == {**vars(profile), "path": ""}
    read.check(graph, "aarch64, Pi, 4 cores", 2, "CPUExecutionProvider")


def test_profile_of_something_else_is_refused(profile, graph):
    other = type(graph)("big", graph.nodes, graph.tensors, ("x",), ("y",), (), digest="f" * 64)
    with pytest.raises(
        ProfileError, match=r"measured on model small \(0123456789ab\), not on big \(ffffffffffff\)"
    ):
        profile.check(other)
    with pytest.raises(ProfileError, match="measured on machine aarch64, Pi, 4 cores, not x86_64; run"):
        profile.check(graph, machine="x86_64")
    with pytest.raises(ProfileError, match="measured with threads 2, not 4"):
        profile.check(graph, threads=4)
    with pytest.raises(ProfileError, match="measured with execution provider CPUExecutionProvider, not CUDA"):
        profile.check(graph, execution_provider="CUDAExecutionProvider")


def test_profile_of_part_of_the_height_is_refused(profile, graph):
    profile.segments[SECOND].seconds.pop(5)
    with pytest.raises(ProfileError, match="does not cover the whole height"):
        profile.check(graph)


def _edit(change):
    def apply(content):
        change(content)
        return json.dumps(content)

    return apply


def _set(key, value):
    return _edit(lambda c: c.__setitem__(key, value))


def _sample(value):
    return _edit(lambda c: c["segments"][1]["seconds"].__setitem__("5", value))


BROKEN = {
    "not JSON": (lambda c: "{", "is not JSON"),
    "not text": (lambda c: "\x00\xff", "is not JSON"),
    "a list": (lambda c: "[]", "is no device profile of format distredge-profile-1"),
    "other format": (_set("format", "v0"), "is no device profile of format"),
    "model missing": (_edit(lambda c: c.pop("model")), "model is 'None', not a text"),
    "threads": (_set("threads", -1), "threads is '-1', not a whole number"),
    "no segments": (_set("segments", []), "has no segments"),
    "segment is no object": (_set("segments", [3]), "a segment's nodes are not a list"),
    "negative node": (_edit(lambda c: c["segments"][0].__setitem__("nodes", [-1])), "nodes are not a list"),
    "no samples": (
        _edit(lambda c: c["segments"][1].__setitem__("seconds", {})),
        "from node 2 has no samples",
    ),
    "empty samples": (_sample([]), "5 rows of the segment from node 2 have no samples"),
    "rows": (_edit(lambda c: c["segments"][0]["seconds"].__setitem__("x", [1])), "'x' is no number of rows"),
    "negative": (_sample([0.1, -0.5]), "5 rows of the segment from node 2 take '-0.5' seconds, which is not"),
    "not a number": (_sample([float("nan")]), "take 'nan' seconds"),
    "infinite": (_sample([float("inf")]), "take 'inf' seconds"),
    "a text": (_sample(["1"]), "take \"'1'\" seconds"),
    "coding": (_set("coding_s_per_byte", [1e-9]), "coding_s_per_byte' is '[1e-09]', not two finite times"),
    "one end of it": (
        _set("coding_s_per_byte", {"fp16": [1e-9]}),
        "'fp16' is '[1e-09]', not two finite times",
    ),
    "less than none": (_set("coding_s_per_byte", {"int8": [0, -1]}), "'int8' is '[0, -1]', not two finite"),
    "true": (_sample([True]), "take 'True' seconds"),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files(profile, tmp_path, broken, message):
    file = tmp_path / "pi.json"
    profile.save(file)
    file.write_text(broken(json.loads(file.read_text())))
    with pytest.raises(ProfileError, match=re.escape(message)) as caught:
        load_profile(file)
    line = str(caught.value)
    assert line.startswith(f"{file}: ")
    assert "\n" not in line


def test_missing_file(tmp_path):
    with pytest.raises(
        ProfileError, match=r"pi\.json: cannot be read: No such file or directory; run `distredge"
    ):
        load_profile(tmp_path / "pi.json")


def test_provider_names_a_file_or_a_folder_of_them(profile, graph, tmp_path):
    file = tmp_path / f"{graph.digest[:16]}.json"
    profile.save(file)
    for named in (file, tmp_path):
        times = compute_times(Provider("a", profile=str(named), threads=2), graph)
        assert times.seconds(SECOND, 5) == 0.5
    with pytest.raises(ProfileError, match="measured with threads 2, not 1"):
        compute_times(Provider("a", profile=str(file), threads=1), graph)


def test_fingerprints():
    assert Machine("aarch64", "Pi 4", 4).fingerprint == "aarch64, Pi 4, 4 cores"
    assert Machine("x86_64", "Xeon", 1, 0.6).fingerprint == "x86_64, Xeon, 1 core, 0.60 cores' time"
    assert this_machine().fingerprint == this_machine().fingerprint
    assert this_machine().cores >= 1


def _proc(root, cgroup, mountinfo):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/self/mountinfo").write_text(mountinfo)


def test_quota_of_cgroup_v1(tmp_path):
    _proc(
        tmp_path,
        "3:cpu,cpuacct:/de-x/a\n2:memory:/m\n0::/\n",
        "30 1 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        "31 1 0:2 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    )
    group = tmp_path / "sys/fs/cgroup/cpu/de-x/a"
    group.mkdir(parents=True)
    for folder, quota in ((group, "3000"), (group.parent, "-1")):
        (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (folder / "cpu.cfs_period_us").write_text("5000\n")
    assert cpu_quota(tmp_path) == 0.6


def test_quota_of_cgroup_v2_is_the_smallest_above(tmp_path):
    _proc(tmp_path, "0::/a/b\n", "30 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    group = tmp_path / "sys/fs/cgroup/a/b"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    (group.parent / "cpu.max").write_text("2500 5000\n")
    assert cpu_quota(tmp_path) == 0.5


def test_no_quota(tmp_path):
    _proc(tmp_path, "0::/../elsewhere\n", "30 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    assert cpu_quota(tmp_path) is None
    assert cpu_quota(tmp_path / "nothing") is None
