"""The values of the hosts file: what each key may say, and how it is read."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

from distredge.cluster.ini import Section, clip

DEFAULT_PORT = 9100
DEFAULT_DEPLOY_DIR = "~/distredge"
MOST_SLOTS = 256
"""Peers on one machine."""

_COST_KEYS = ("latency_ms", "fixed_ms", "send_ms_per_mb", "receive_ms_per_mb")
_LINK_KEYS = ("uplink_mbps", "downlink_mbps", *_COST_KEYS)
REQUESTER_KEYS = ("address", "keys", *_LINK_KEYS)
NETWORK_KEYS = ("access_point_mbps", "encryption")
ENCRYPTION = ("auto", "on", "off")
PROVIDER_KEYS = (
    "address",
    "ports",
    "ssh_user",
    "ssh_port",
    "identity_file",
    "known_hosts",
    "deploy_dir",
    "wheels_dir",
    "python",
    "slots",
    "execution_providers",
    "threads",
    "memory_mb",
    "profile",
    *_LINK_KEYS,
)
DEFAULTS_KEYS = tuple(key for key in PROVIDER_KEYS if key != "address")

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_ENGINE = re.compile(r"[A-Za-z0-9]+ExecutionProvider")
_ENGINES = {
    "cpu": "CPU",
    "cuda": "CUDA",
    "tensorrt": "Tensorrt",
    "openvino": "OpenVINO",
    "xnnpack": "Xnnpack",
}


def read_settings(section: Section, folder: Path) -> dict[str, Any]:
    """The values of all keys that are given, but for `address`; of the types that Provider has."""
    profile = section.text("profile")
    found = {
        "ports": _ports(section),
        "ssh_user": _ssh_user(section),
        "ssh_port": section.integer("ssh_port", 1, 65535),
        "identity_file": _path(section, "identity_file", folder),
        "known_hosts": _path(section, "known_hosts", folder),
        "deploy_dir": _deploy_dir(section),
        "wheels_dir": _path(section, "wheels_dir", folder),
        "python": section.text("python"),
        "slots": section.integer("slots", 1, MOST_SLOTS),
        "execution_providers": _engines(section),
        "threads": section.integer("threads", 1, 4096),
        "memory_mb": section.integer("memory_mb", 1),
        "profile": _path(section, "profile", folder) if _is_file(profile) else profile,
    }
    return {key: value for key, value in found.items() if value is not None} | read_link(section)


def read_address(section: Section) -> tuple[str | None, int | None]:
    """Host and, if given, port."""
    text = section.text("address")
    if text is None:
        return None, None
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        if not bracket or (rest and not rest.startswith(":")) or not _is_ipv6(host):
            section.fail("address", f"{clip(text)} is no IPv6 address; write [::1]:{DEFAULT_PORT}")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not (_HOST.fullmatch(host) or _is_ipv6(host)) or _looks_like_bad_ip(host):
        section.fail("address", f"{clip(text)} is not a host name or IP address; write host or host:port")
    if host == text or text.endswith("]"):
        return host, None
    if not _is_port(port):
        section.fail("address", f"{clip(port)} is no port; give a number from 1 to 65535")
    return host, int(port)


def read_encryption(section: Section) -> str:
    """Which connections are encrypted."""
    text = section.text("encryption") or ENCRYPTION[0]
    if text not in ENCRYPTION:
        section.fail(
            "encryption", f"{clip(text)} is no choice; write {', '.join(ENCRYPTION[:-1])} or {ENCRYPTION[-1]}"
        )
    return text


def read_keys(section: Section, folder: Path) -> str | None:
    """The folder of keys, if one is named."""
    return _path(section, "keys", folder)


def _ports(section: Section) -> tuple[int, ...] | None:
    text = section.text("ports")
    if text is None:
        return None
    ports: list[int] = []
    for item in text.split(","):
        low, dash, high = (part.strip() for part in item.partition("-"))
        bounds = (low, high) if dash else (low,)
        if not all(_is_port(bound) for bound in bounds):
            section.fail("ports", f"{clip(item.strip())} is no port; write 9100, 9100-9103 or 9100, 9200")
        ports.extend(range(int(bounds[0]), int(bounds[-1]) + 1))
    if not ports or len(set(ports)) != len(ports):
        section.fail("ports", f"{clip(text)} names a port twice or none at all; give each once")
    return tuple(ports)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536


def _engines(section: Section) -> tuple[str, ...] | None:
    text = section.text("execution_providers")
    if text is None:
        return None
    found = []
    for item in text.split(","):
        word = item.strip()
        name = f"{_ENGINES[word.lower()]}ExecutionProvider" if word.lower() in _ENGINES else word
        if not _ENGINE.fullmatch(name):
            section.fail(
                "execution_providers",
                f"{clip(word)} is no execution provider; write cpu, cuda, tensorrt or onnxruntime's own name",
            )
        found.append(name)
    return tuple(found)


def _deploy_dir(section: Section) -> str | None:
    text = section.text("deploy_dir")
    if text is None:
        return None
    parts = text.split("/")
    if parts[0] not in ("", "~") or not any(parts[1:]) or ".." in parts or not text.isprintable():
        section.fail("deploy_dir", f"{clip(text)} is no folder of its own; write /path/to/it or ~/path/to/it")
    return text.rstrip("/")


def _ssh_user(section: Section) -> str | None:
    text = section.text("ssh_user")
    if text is not None and not _USER.fullmatch(text):
        section.fail("ssh_user", f"{clip(text)} is not a user name; correct it")
    return text


def _path(section: Section, key: str, folder: Path) -> str | None:
    text = section.text(key)
    return None if text is None else str(folder / Path(text).expanduser())


def read_link(section: Section) -> dict[str, float]:
    """The link's keys that are given; one rate alone stands for both directions."""
    found = {key: section.number(key, "10^6 bits a second") for key in ("uplink_mbps", "downlink_mbps")}
    if found["uplink_mbps"] is None:
        found["uplink_mbps"] = found["downlink_mbps"]
    if found["downlink_mbps"] is None:
        found["downlink_mbps"] = found["uplink_mbps"]
    for key in _COST_KEYS:
        found[key] = section.number(key, "milliseconds", zero=True)
    return {key: value for key, value in found.items() if value is not None}


def _is_file(profile: str | None) -> bool:
    return profile is not None and ("/" in profile or profile.endswith(".json"))


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _looks_like_bad_ip(host: str) -> bool:
    """All digits and dots, but not an IPv4 address."""
    if set(host) - set("0123456789."):
        return False
    try:
        return ipaddress.ip_address(host).version != 4
    except ValueError:
        return True
