"""hosts.ini: what is read, and the one line that each mistake gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distredge.cluster.hosts import Cluster, Provider, Requester, load_hosts
from distredge.cluster.hosts_values import (
    DEFAULTS_KEYS,
    ENCRYPTION,
    NETWORK_KEYS,
    PROVIDER_KEYS,
    REQUESTER_KEYS,
)
from distredge.cluster.hosts_writer import format_hosts
from distredge.errors import HostsError

ROOT = Path(__file__).parents[2]


def load(tmp_path: Path, text: str) -> Cluster:
    file = tmp_path / "hosts.ini"
    file.write_text(text)
    return load_hosts(file)


def test_example_of_the_repository_runs_locally():
    cluster = load_hosts(ROOT / "hosts.ini")
    assert len(cluster.names) >= 2
    assert cluster.is_local
    assert not cluster.is_simulated


def test_every_key(tmp_path):
    cluster = load(
        tmp_path,
        """
        [requester]
        address = 10.0.0.1
        uplink_mbps = 1000
        latency_ms = 0.5
        keys = our/keys

        [network]
        access_point_mbps = 1200
        encryption = on

        [provider:kitchen]
        address = nano.local
        ports = 9200, 9300-9301   # three of them
        ssh_user = pi
        ssh_port = 2222
        identity_file = keys/id
        known_hosts = known_hosts
        deploy_dir = ~/apps/distredge/
        wheels_dir = /srv/wheels
        python = /usr/bin/python3.11
        slots = 3
        execution_providers = cuda, CPUExecutionProvider
        threads = 2
        memory_mb = 3000
        profile = profiles/nano.json
        uplink_mbps = 50
        downlink_mbps = 99.5
        latency_ms = 1.5
        fixed_ms = 0.1
        """,
    )
    assert cluster.requester == Requester("10.0.0.1", 1000, 1000, 0.5, keys=str(tmp_path / "our/keys"))
    assert cluster.access_point_mbps == 1200
    assert cluster.encryption == "on"
    assert cluster.providers == (
        Provider(
            name="kitchen",
            address="nano.local",
            ports=(9200, 9300, 9301),
            ssh_user="pi",
            ssh_port=2222,
            identity_file=str(tmp_path / "keys/id"),
            known_hosts=str(tmp_path / "known_hosts"),
            deploy_dir="~/apps/distredge",
            wheels_dir="/srv/wheels",
            python="/usr/bin/python3.11",
            slots=3,
            execution_providers=("CUDAExecutionProvider", "CPUExecutionProvider"),
            threads=2,
            memory_mb=3000,
            profile=str(tmp_path / "profiles/nano.json"),
            uplink_mbps=50,
            downlink_mbps=99.5,
            latency_ms=1.5,
            fixed_ms=0.1,
        ),
    )
    assert cluster.names == ("kitchen.0", "kitchen.1", "kitchen.2")
    assert [d.endpoint for d in cluster.devices] == [f"tcp://nano.local:{p}" for p in (9200, 9300, 9301)]
    assert {d.memory_mb for d in cluster.devices} == {1000}


def test_defaults_hold_where_a_provider_says_nothing(tmp_path):
    cluster = load(
        tmp_path,
        "[provider:a]\naddress = h1\n[provider:b]\naddress = h2:7\nthreads = 1\ndownlink_mbps = 10\n"
        "[defaults]\nthreads = 4\nports = 9500\nuplink_mbps = 200\nssh_user = pi\n",
    )
    a, b = cluster.providers
    assert (a.threads, a.port, a.uplink_mbps, a.ssh_user) == (4, 9500, 200, "pi")
    # its one rate stands for both directions, whatever the defaults say
    assert (b.threads, b.port, b.uplink_mbps, b.downlink_mbps) == (1, 7, 10, 10)


def test_simulated_cluster(tmp_path):
    cluster = load(tmp_path, "[provider:a]\nprofile = synthetic-jetson-nano\nuplink_mbps = 50\n")
    assert cluster.is_simulated
    assert not cluster.is_local
    assert cluster.providers[0].endpoint is None
    assert cluster.providers[0].profile == "synthetic-jetson-nano"


def test_simulated_devices_may_share_the_default_port(tmp_path):
    assert load(tmp_path, "[provider:a]\nprofile = x\n[provider:b]\nprofile = x\n").names == ("a", "b")


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("127.0.0.1", "tcp://127.0.0.1:9100"),
        ("localhost:80", "tcp://localhost:80"),
        ("::1", "tcp://[::1]:9100"),
        ("[::1]:8000", "tcp://[::1]:8000"),
        ("[::1]", "tcp://[::1]:9100"),
    ],
)
def test_addresses(tmp_path, address, endpoint):
    cluster = load(tmp_path, f"[provider:a]\naddress = {address}\n")
    assert cluster.providers[0].endpoint == endpoint
    assert cluster.is_local


def test_byte_order_mark_and_windows_lines(tmp_path):
    (tmp_path / "hosts.ini").write_bytes("\ufeff[provider:a]\r\naddress = h\r\n".encode())
    assert load_hosts(tmp_path / "hosts.ini").providers[0].address == "h"


A = "[provider:a]\naddress = h1\n"
MISTAKES = {
    "unknown key": (A + "adress = h\n", "3: [provider:a] adress: unknown key; did you mean address?"),
    "case of a key": (A + "Threads = 1\n", "3: [provider:a] Threads: unknown key; did you mean threads?"),
    "key of another section": ("[requester]\nslots = 2\n" + A, "2: [requester] slots: unknown key; the keys"),
    "address as a default": ("[defaults]\naddress = h\n" + A, "2: [defaults] address: unknown key"),
    "unknown section": (A + "[worker:b]\naddress = h\n", "3: [worker:b]: unknown section; a hosts file has"),
    "no inherited DEFAULT": (A + "[DEFAULT]\nthreads = 1\n", "3: [DEFAULT]: unknown section"),
    "provider without name": ("[provider:]\naddress = h\n", "1: [provider:]: '' cannot be a name"),
    "bad name": ("[provider:a/b]\naddress = h\n", "1: [provider:a/b]: 'a/b' cannot be a name"),
    "reserved name": (
        "[provider:requester]\naddress = h\n",
        "1: [provider:requester]: 'requester' cannot be",
    ),
    "section twice": (A + "\n" + A, "4: [provider:a]: this section comes twice (first in line 1)"),
    "key twice": (A + "address = h2\n", "3: [provider:a] address: this key comes twice (first in line 2)"),
    "same address and port": (
        A + "[provider:b]\naddress = H1\n",
        "4: [provider:b] address: H1:9100 is already",
    ),
    "localhost is 127.0.0.1": (
        "[provider:a]\naddress = localhost:7\n[provider:b]\naddress = 127.0.0.1:7\n",
        "4: [provider:b] address: 127.0.0.1:7 is already [provider:a] in line 1; give another",
    ),
    "slots overlap": (
        A + "slots = 3\n[provider:b]\naddress = h1:9102\n",
        "5: [provider:b] address: h1:9102 is already [provider:a] in line 1",
    ),
    "name of a slot": (
        "[provider:a.1]\naddress = h2\n" + A + "slots = 2\n",
        "5: [provider:a] slots: a.1 is also the name of a slot or provider of line 1",
    ),
    "neither address nor profile": (
        A + "[provider:b]\nthreads = 1\n",
        "3: [provider:b]: has neither an address",
    ),
    "no provider": ("[requester]\n", " describes no device; add a section [provider:NAME]"),
    "empty file": ("", " describes no device"),
    "negative rate": (
        A + "uplink_mbps = -5\n",
        "3: [provider:a] uplink_mbps: '-5' is negative; give 10^6 bits",
    ),
    "zero rate": (A + "uplink_mbps = 0\n", "3: [provider:a] uplink_mbps: '0' is zero; give 10^6 bits"),
    "rate no number": (A + "uplink_mbps = fast\n", "3: [provider:a] uplink_mbps: 'fast' is not a number"),
    "rate with a unit": (
        A + "uplink_mbps = 5 Mbit\n",
        "3: [provider:a] uplink_mbps: '5 Mbit' is not a number",
    ),
    "not finite": (A + "downlink_mbps = inf\n", "3: [provider:a] downlink_mbps: 'inf' is not finite"),
    "NaN": (A + "latency_ms = nan\n", "3: [provider:a] latency_ms: 'nan' is not finite"),
    "negative latency": (A + "latency_ms = -1\n", "3: [provider:a] latency_ms: '-1' is negative"),
    "requester's rate": ("[requester]\nuplink_mbps = x\n" + A, "2: [requester] uplink_mbps: 'x' is not"),
    "default's rate": ("[defaults]\nthreads = 0\n" + A, "2: [defaults] threads: '0' is out of range"),
    "threads": (
        A + "threads = two\n",
        "3: [provider:a] threads: 'two' is not a whole number; give one from 1",
    ),
    "slots": (
        A + "slots = 0\n",
        "3: [provider:a] slots: '0' is out of range; give a whole number from 1 to 256",
    ),
    "memory": (A + "memory_mb = 1.5\n", "3: [provider:a] memory_mb: '1.5' is not a whole number"),
    "port too high": ("[provider:a]\naddress = h:70000\n", "2: [provider:a] address: '70000' is no port"),
    "port missing": ("[provider:a]\naddress = h:\n", "2: [provider:a] address: '' is no port"),
    "counted past the last port": (
        "[provider:a]\naddress = h:65535\nslots = 2\n",
        "3: [provider:a] slots: port 65536 is above 65535",
    ),
    "two places for the port": (
        A.replace("h1", "h1:7") + "ports = 8\n",
        "3: [provider:a] ports: the address has",
    ),
    "ports for slots": (A + "ports = 1, 2\nslots = 3\n", "3: [provider:a] ports: 2 ports for 3 slots"),
    "port twice": (A + "ports = 5, 5\nslots = 2\n", "3: [provider:a] ports: '5, 5' names a port twice"),
    "ports no number": (A + "ports = x\n", "3: [provider:a] ports: 'x' is no port; write 9100"),
    "quotes": ('[provider:a]\naddress = "h1"\n', "2: [provider:a] address: '\"h1\"' is not a host name"),
    "IPv4": ("[provider:a]\naddress = 10.0.0.256\n", "2: [provider:a] address: '10.0.0.256' is not a host"),
    "IPv6": ("[provider:a]\naddress = [fe80::zz]:1\n", "2: [provider:a] address: '[fe80::zz]:1' is no IPv6"),
    "a URL": (
        "[provider:a]\naddress = tcp://h:1\n",
        "2: [provider:a] address: 'tcp://h:1' is not a host name",
    ),
    "engine": (
        A + "execution_providers = gpu\n",
        "3: [provider:a] execution_providers: 'gpu' is no execution",
    ),
    "deploy_dir": (A + "deploy_dir = apps\n", "3: [provider:a] deploy_dir: 'apps' is no folder of its own"),
    "deploy_dir is root": (A + "deploy_dir = /\n", "3: [provider:a] deploy_dir: '/' is no folder of its own"),
    "deploy_dir is home": (
        A + "deploy_dir = ~/\n",
        "3: [provider:a] deploy_dir: '~/' is no folder of its own",
    ),
    "encryption": (
        A + "[network]\nencryption = yes\n",
        "4: [network] encryption: 'yes' is no choice; write auto, on or off",
    ),
    "ssh_user": (A + "ssh_user = -oProxy\n", "3: [provider:a] ssh_user: '-oProxy' is not a user name"),
    "no value": (A + "threads =\n", "3: [provider:a] threads: has no value; give one or remove the line"),
    "only a comment for a value": (A + "threads = # 2\n", "3: [provider:a] threads: has no value"),
    "no equals sign": (A + "threads: 2\n", "3: 'threads: 2' is neither a section nor a comment nor"),
    "no header": ("address = h\n", "1: 'address = h' stands in front of the first section"),
    "header open": (A + "[provider:b\n", "3: '[provider:b' is not a section header"),
    "header and more": (A + "[provider:b] x = 1\n", "3: '[provider:b] x = 1' is not a section header"),
    "indented key": (A + "  threads = 1\n", "3: [provider:a]: 'threads = 1' is indented"),
    "indented section": (A + " [provider:b]\naddress = h\n", "3: [provider:a]: '[provider:b]' is indented"),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(tmp_path, text, message):
    with pytest.raises(HostsError) as caught:
        load(tmp_path, text)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/hosts.ini:{message}")
    assert "\n" not in line
    assert ";" in line, "says what to do"
    assert caught.value.exit_code == 2


def test_unreadable_files(tmp_path):
    with pytest.raises(HostsError, match=r"nowhere\.ini: cannot be read: No such file or directory; check"):
        load_hosts(tmp_path / "nowhere.ini")
    with pytest.raises(HostsError, match="cannot be read: Is a directory"):
        load_hosts(tmp_path)
    (tmp_path / "latin.ini").write_bytes(b"[requester]\n# caf\xe9\n")
    with pytest.raises(HostsError, match=r"latin\.ini:2: is not UTF-8 text"):
        load_hosts(tmp_path / "latin.ini")


def test_errors_carry_their_context(tmp_path):
    with pytest.raises(HostsError) as caught:
        load(tmp_path, A + "slots = 0\n")
    assert caught.value.context == {
        "file": f"{tmp_path}/hosts.ini",
        "line": 3,
        "section": "provider:a",
        "key": "slots",
    }


def test_device_by_name(tmp_path):
    cluster = load(tmp_path, A + "slots = 2\n")
    assert cluster.device("a.1").port == 9101
    with pytest.raises(HostsError, match=r"no device is called 'a'; there are a\.0, a\.1"):
        cluster.device("a")


rates = st.none() | st.floats(0.001, 1e6)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True).filter(lambda n: n != "requester")


@st.composite
def providers(draw: st.DrawFn) -> Provider:
    slots = draw(st.integers(1, 4))
    first = draw(st.integers(1, 65000))
    uplink = draw(rates)
    return Provider(
        name=draw(names),
        address=draw(st.none() | st.ip_addresses().map(str)),
        ports=tuple(range(first, first + slots)),
        ssh_port=draw(st.integers(1, 65535)),
        identity_file=draw(st.none() | st.just("/k/id")),
        slots=slots,
        threads=draw(st.none() | st.integers(1, 64)),
        memory_mb=draw(st.none() | st.integers(1, 10**6)),
        execution_providers=draw(st.sampled_from([(), ("CPUExecutionProvider",)])),
        profile=draw(st.sampled_from(["synthetic-jetson-nano", "/x/y.json"])),
        uplink_mbps=uplink,
        downlink_mbps=None if uplink is None else draw(st.floats(0.001, 1e6)),
        latency_ms=draw(st.floats(0, 1e3)),
    )


@settings(max_examples=100)
@given(
    st.lists(
        providers(), min_size=1, max_size=5, unique_by=(lambda p: p.name, lambda p: p.address or p.name)
    ),
    rates,
    st.sampled_from(ENCRYPTION),
)
def test_written_clusters_read_back(tmp_path_factory, devices, total, encryption):
    requester = Requester(uplink_mbps=total, downlink_mbps=total, keys="/my/keys")
    cluster = Cluster("c", requester, tuple(devices), total, encryption=encryption)
    file = tmp_path_factory.mktemp("hosts") / "c.ini"
    file.write_text(format_hosts(cluster, "made by a test\nof two lines"))
    assert load_hosts(file) == cluster


def test_documentation_explains_each_key():
    text = (ROOT / "docs/hosts.md").read_text()
    documented = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]*) \|", text, re.M))))
    keys = {*PROVIDER_KEYS, *REQUESTER_KEYS, *NETWORK_KEYS}
    assert documented == keys
    assert set(DEFAULTS_KEYS) == set(PROVIDER_KEYS) - {"address"}


def test_example_of_the_documentation_is_valid(tmp_path):
    example = re.search(r"```ini\n(.*?)```", (ROOT / "docs/hosts.md").read_text(), re.S)
    cluster = load(tmp_path, example[1])
    assert cluster.names == ("kitchen", "garage", "one-day")
    assert cluster.is_simulated
