"""A captured machine that can go into a public bug report.

Serial numbers, UUIDs, host and user names, network addresses are replaced by pseudonyms that are
the same in every capture of one host (HMAC-SHA256 under its machine-id, which does not leave with
the file: a serial number has too few digits to be hidden by a bare hash). PCI addresses, versions
and sizes stay, so that the file reads to the same machine.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address

from multigpu.parse.shape import mapping, text

# Names of elements and keys that hold a serial number or another identity of one device, in the
# XML, text and JSON of nvidia-smi, rocm-smi, amd-smi and rocminfo.
IDENTITIES = (
    r"serial(?:[ _]number)?|board[ _]serial|chassis[ _]serial[ _]number|asic_serial|product_serial|"
    r"(?:gpu[ _])?pdi|gpu[ _]fabric[ _]guid|cluster[ _]?uuid|unique[ _]id|fru_id|hive[ _]id|"
    r"xgmi_hive_id|system[ _]serial[ _]number"
)
ELEMENT = re.compile(rf"(<({IDENTITIES})>)([^<]+)(</\2>)", re.IGNORECASE)
KEYED = re.compile(
    rf"(?P<before>(?:^|[\s\"'(,])(?:{IDENTITIES})[\"']?\s*[:=]\s*[\"']?)(?P<value>[0-9A-Za-z][^\s\"'<>,]*)",
    re.IGNORECASE | re.MULTILINE,
)
# Kubernetes writes `pod` before those of pods, and systemd `_` in them.
UUID = re.compile(
    r"(?:(?<![0-9a-f])|(?<=\bpod)|(?<=-pod))[0-9a-f]{8}([-_])[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}(?![0-9a-f])",
    re.I,
)
CONTAINER = re.compile(
    r"((?:docker|containerd|crio|libpod|kubepods)[^\s\"',]{0,200}?[-/])([0-9a-f]{64})(?![0-9a-f])"
)
# KFD writes 64-bit identities in decimal behind a blank.
KFD_IDENTITY = re.compile(r"^((?:unique|hive)_id )(\d{1,20})$", re.ASCII | re.MULTILINE)
# What programs are started with can hold names and keys; which program it is does not.
PROCESS = re.compile(r"(<process_name>)([^<\s]+)[^<]*")
# Serial numbers among the vital product data (lspci): items that every vendor fills in its way.
VPD = re.compile(r"(\[(?:V[0-9A-Z]|YA)\] (?:Vendor specific|Asset tag): )(\S.*)")
# Where the system boots from: volumes are named after hosts and people, disks by serial number.
BOOT = re.compile(
    r"(?<!\S)((?:root|resume|nfsroot|cryptdevice|zfs|bootfs|hostname|systemd\.hostname|"
    r"rd\.(?:luks|lvm|md|dm)[\w.]*|luks[\w.]*)=)(?!/dev/(?:sd|vd|xvd|md|nvme|mmcblk)[\w]+(?:\s|$))(\S+)"
)
ACCOUNT = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?=host-[0-9a-f]{8})")
# lspci writes the Device Serial Number capability in eight pairs of digits.
PCI_SERIAL = re.compile(r"(Device Serial Number )((?:[0-9a-f]{2}-){7}[0-9a-f]{2})", re.IGNORECASE)
# rocminfo writes GPU-, KFD and amdgpu write the same 64-bit number bare or after 0x.
AMD_UUID = re.compile(r"\bGPU-([0-9a-f]{16})\b", re.IGNORECASE)
MAC = re.compile(
    r"(?<![0-9a-f:])(?:[0-9a-f]{2}:){5}(?:[0-9a-f]{2}:){0,14}[0-9a-f]{2}(?![0-9a-f:])", re.I
)
IPV4 = re.compile(r"(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)", re.ASCII)
IPV6 = re.compile(r"(?<![\w:.])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?![\w:])", re.IGNORECASE)
HOME = re.compile(r"(/home/|/Users/)([^/\s\"':;,]+)")
ROOM = ("files", "processes", "managed", "paths", "kfd_processes")
"""Parts beside the tools in which a name of the host can stand."""
KERNEL_LOG = "journalctl -k"
SYSTEM_USERS = {"root", "multigpu", "nobody", "systemd-network", "messagebus"}
# A host of such a name is told by nothing in the text.
COMMON_WORDS = {
    *("localhost", "kernel", "gpu", "gpus", "nvidia", "amd", "amdgpu", "nvrm", "pci", "pcie"),
    "xid",
    *("linux", "ubuntu", "debian", "system", "service", "slice", "user", "root", "home", "server"),
    *("etc", "opt", "usr", "lib", "var", "multigpu", "python", "python3", "cuda", "rocm", "vllm"),
}
# AMD's numbers of a kind of board or firmware: no identity of one card.
PART_NUMBER = re.compile(r"1\d\d-")
NOTHING = {"n/a", "[n/a]", "none", "0", "0x0", "unknown", "not"}


class Pseudonyms:
    """Replaces what identifies one host; `key` is secret, `names` are the host's own names."""

    def __init__(self, key: str, names: tuple[str, ...] = ()) -> None:
        self._key = key.encode("utf-8", "backslashreplace")
        known = {n.lower() for name in names for n in (name, name.split(".")[0]) if len(n) > 2}
        longest_first = sorted(known - COMMON_WORDS, key=lambda name: (-len(name), name))
        words = "|".join(re.escape(name) for name in longest_first)
        self._names = re.compile(rf"(?<![^\W_]|-)(?:{words})(?![^\W_]|-)", re.I) if words else None

    def digest(self, value: str) -> str:
        """Hexadecimal digits, the same for the same value under the same key."""
        data = value.lower().encode("utf-8", "backslashreplace")
        return hmac.new(self._key, data, hashlib.sha256).hexdigest()

    def name(self, value: str) -> str:
        """Of a host."""
        return f"host-{self.digest(value.split('.')[0])[:8]}"

    def user(self, value: str) -> str:
        """Of an account; those of every system stay."""
        return value if value in SYSTEM_USERS else f"user-{self.digest(value)[:8]}"

    def uuid(self, value: str) -> str:
        """In the layout of a UUID; one of zeros says that there is none, and stays."""
        if not value.strip("0-_"):
            return value
        d, join = self.digest(value.replace("_", "-")), value[8]
        return join.join((d[:8], d[8:12], d[12:16], d[16:20], d[20:32]))

    def pairs(self, value: str) -> str:
        """Of a PCI device serial number; one of zeros says that there is none, and stays."""
        digits = self.digest(value)
        return "-".join(digits[i : i + 2] for i in range(0, 16, 2)) if value.strip("0-") else value

    def identity(self, value: str) -> str:
        """Of a serial number, as many characters long; digits stay digits."""
        if value.lower() in NOTHING or not any(c.isdigit() for c in value):
            return value
        if UUID.fullmatch(value) or PART_NUMBER.match(value):
            return value
        if value.lower().startswith("0x"):
            return "0x" + self.digest(value[2:])[: len(value) - 2]
        if value.isdecimal():
            return str(int(self.digest(value), 16))[-len(value) :]
        return self.digest(value)[: len(value)]

    def wide(self, value: str) -> str:
        """Of a 64-bit number in decimal: the same digits that `identity` gives its hexadecimal."""
        number = int(value)
        return str(int(self.digest(f"{number:016x}")[:16], 16)) if number else value

    def addresses(self, found: re.Match[str]) -> str:
        """Of an IP address; anything else that looks alike (a time, a version) stays."""
        try:
            ip = ip_address(found[0])
        except ValueError:
            return found[0]
        if ip.is_unspecified or ip.is_loopback:
            return found[0]
        return f"ip-{self.digest(found[0])[:8]}"

    def line(self, value: str, *, names: bool) -> str:
        """One text; `names`: host names may stand in it."""
        value = ELEMENT.sub(lambda m: f"{m[1]}{self.identity(m[3])}{m[4]}", value)
        value = KEYED.sub(lambda m: f"{m['before']}{self.identity(m['value'])}", value)
        value = KFD_IDENTITY.sub(lambda m: m[1] + self.wide(m[2]), value)
        value = PCI_SERIAL.sub(lambda m: m[1] + self.pairs(m[2]), value)
        value = VPD.sub(lambda m: m[1] + self.digest(m[2])[:12], value)
        value = UUID.sub(lambda m: self.uuid(m[0]), value)
        value = CONTAINER.sub(lambda m: m[1] + self.digest(m[2]), value)
        value = AMD_UUID.sub(lambda m: f"GPU-{self.digest(m[1])[:16]}", value)
        value = MAC.sub(lambda m: f"mac-{self.digest(m[0])[:8]}", value)
        value = IPV4.sub(self.addresses, value)
        value = IPV6.sub(self.addresses, value)
        value = BOOT.sub(lambda m: f"{m[1]}hidden-{self.digest(m[2])[:8]}", value)
        value = HOME.sub(lambda m: f"{m[1]}{self.user(m[2])}", value)
        value = PROCESS.sub(lambda m: m[1] + self.host_names(m[2]), value)
        return self.host_names(value) if names else value

    def host_names(self, value: str) -> str:
        """The text without the host's own names, and accounts at them."""
        if self._names is None:
            return value
        value = self._names.sub(lambda m: self.name(m[0]), value)
        return ACCOUNT.sub(lambda m: f"{self.user(m[0][:-1])}@", value)


def pseudonymised(document: dict[str, object], name: str) -> dict[str, object]:
    """The probe's document without what identifies its host; `name` is that of the inventory.

    Where the host has no machine-id, the UUIDs of its cards are the key, else the document itself.
    A document that holds pseudonyms already stays as it is.
    """
    if document.get("pseudonyms") is True:
        return document
    system = mapping(document.get("system"))
    known = (name, text(system.get("hostname")) or "")
    key = text(system.get("machine_id")) or "".join(sorted(_uuids(document))) or repr(document)
    hidden = Pseudonyms(key, known)
    found = {part: _part(part, value, hidden) for part, value in document.items()}
    if "system" in found:
        hostname = hidden.name(known[1]) if known[1] else None
        found["system"] = {**mapping(found["system"]), "hostname": hostname, "machine_id": None}
    return {"schema": found.pop("schema", None), "pseudonyms": True, **found}


def _part(part: str, value: object, hidden: Pseudonyms) -> object:
    """One part of the document, with what only that part holds."""
    if part == "tools":
        return {tool: _tool(tool, record, hidden) for tool, record in mapping(value).items()}
    if part in ("managed", "paths"):
        value = _owners(value, hidden)
    if part == "amdgpu":
        value = _identities(value, hidden)
    return _walk(value, partial(hidden.line, names=part in ROOM))


def _tool(tool: str, record: object, hidden: Pseudonyms) -> object:
    """One run of a tool; only the kernel log speaks of hosts and programs by name."""
    return _walk(record, partial(hidden.line, names=tool == KERNEL_LOG))


def _owners(value: object, hidden: Pseudonyms) -> object:
    """Files with the names of their owners replaced."""
    if isinstance(value, list):
        return [_owners(entry, hidden) for entry in value]
    if not isinstance(value, dict):
        return value
    return {
        key: ":".join(hidden.user(word) for word in entry.split(":"))
        if key == "owner" and isinstance(entry, str)
        else _owners(entry, hidden)
        for key, entry in value.items()
    }


def _identities(value: object, hidden: Pseudonyms) -> object:
    """sysfs files that hold nothing but an identity."""
    return {
        address: {file: _identity(file, entry, hidden) for file, entry in mapping(files).items()}
        for address, files in mapping(value).items()
    }


def _identity(file: str, entry: object, hidden: Pseudonyms) -> object:
    if not isinstance(entry, str):
        return entry
    if file == "unique_id":
        return hidden.digest(entry)[:16]
    number = file == "xgmi_hive_info/xgmi_hive_id" and entry.isascii() and entry.isdecimal()
    return hidden.wide(entry) if number and len(entry) <= 20 else entry


def _walk(value: object, change: Callable[[str], str]) -> object:
    """The same value with every text in it changed; keys too, since paths stand there."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_walk(entry, change) for entry in value]
    if isinstance(value, dict):
        return {change(str(key)): _walk(entry, change) for key, entry in value.items()}
    return value


def _uuids(value: object) -> set[str]:
    """Every UUID in a document."""
    if isinstance(value, str):
        return {match[0] for match in UUID.finditer(value)}
    entries = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    return {found for entry in entries for found in _uuids(entry)}
