"""What rocminfo prints: HSA agents, one per NUMA node of the processor first, then the GPUs.

Their order is that of KFD and of HIP. The PCI domain is not printed: where two GPUs show the same
BDFID (an MI300A board, partitions of one card), no address is given.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from multigpu import gfx
from multigpu.hardware import Gpu, Vendor
from multigpu.parse.amd.rocm_smi_card import unique_id
from multigpu.parse.reading import Kind, Lines, Reading, signature
from multigpu.parse.shape import whole

AGENT = re.compile(r"^\s{0,8}Agent (\d{1,4})\s*$", re.ASCII)
FIELD = re.compile(
    r"^(\s{0,12})([A-Z][\w .()/-]{0,40}?):{1,2}(?:\s{0,40}(\S.{0,300}?))?\s*$", re.ASCII
)
RULE = re.compile(r"^\s{0,8}(?:\*{3,}|={3,}|HSA System Attributes|HSA Agents|\*{3} Done \*{3})\s*$")
REST = re.compile(
    r"^\s{0,16}(?:(?:Pool|ISA) \d{1,3}|N/A|[xyz]\s{1,40}\d{1,12}\(.{1,20}\))\s*$", re.ASCII
)
SIZE = re.compile(r"(\d{1,15})\(0x[0-9a-f]{1,16}\) KB", re.ASCII)
CHIP = re.compile(r"\d{1,10}\((0x[0-9a-f]{1,8})\)", re.ASCII)
GFX = re.compile(r"gfx[0-9a-f]{3,5}")


@dataclass(frozen=True)
class Agent:
    """One HSA agent. `type` is CPU, GPU or DSP (the NPU). `pci_bus_id` assumes domain 0000."""

    number: int
    type: str | None = None
    name: str | None = None
    marketing_name: str | None = None
    uuid: str | None = None
    node: int | None = None
    chip_id: str | None = None
    pci_bus_id: str | None = None
    memory_mib: int | None = None
    compute_units: int | None = None
    apu: bool | None = None

    @property
    def gfx(self) -> str | None:
        """`gfx906`; None for a processor."""
        return self.name if self.name and GFX.fullmatch(self.name) else None


@dataclass(frozen=True)
class RocmInfo:
    """All agents in their order."""

    agents: tuple[Agent, ...] = ()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """GPU agents as cards, numbered as HIP numbers them."""
        found = [agent for agent in self.agents if agent.type == "GPU"]
        return tuple(_gpu(index, agent) for index, agent in enumerate(found))


def read_rocminfo(printed: str) -> Reading[RocmInfo]:
    """Every agent; one that is cut keeps what came before."""
    lines = Lines(printed)
    agents: list[dict[str, str]] = []
    margin = 0
    for position, line in lines:
        if match := AGENT.match(line):
            agents.append({"number": match[1]})
        elif match := FIELD.match(line):
            if agents:
                margin = margin if len(agents[-1]) > 1 else len(match[1])
                _keep(agents[-1], len(match[1]) - margin, match[2], match[3] or "")
        elif not (RULE.match(line) or REST.match(line)):
            continue
        lines.mark(position)
    shared = Counter(_place(fields) for fields in agents if fields.get("Device Type") == "GPU")
    return lines.reading(RocmInfo(tuple(_agent(fields, shared) for fields in agents)))


def _keep(fields: dict[str, str], indent: int, key: str, value: str) -> None:
    """Fields of the agent stand where its name does, those of pools and ISAs deeper.

    The first pool in GLOBAL memory of a GPU is its VRAM.
    """
    if indent <= 0:
        fields.setdefault(key, value)
    elif key == "Segment":
        fields["segment"] = value
    elif key == "Size" and fields.get("segment", "").startswith("GLOBAL"):
        fields.setdefault("memory", value)


def _agent(fields: dict[str, str], shared: Counter[str | None]) -> Agent:
    kind = fields.get("Device Type") or None
    chip, size = CHIP.match(fields.get("Chip ID", "")), SIZE.match(fields.get("memory", ""))
    place = _place(fields)
    properties = fields.get("Memory Properties")
    return Agent(
        number=int(fields["number"]),
        type=kind,
        name=fields.get("Name") or None,
        marketing_name=fields.get("Marketing Name") or None,
        uuid=unique_id(fields.get("Uuid", "").removeprefix("GPU-")) if kind == "GPU" else None,
        node=whole(fields.get("Node")),
        chip_id=chip[1] if chip and int(chip[1], 16) else None,
        pci_bus_id=place if kind == "GPU" and shared[place] == 1 else None,
        memory_mib=int(size[1]) >> 10 if size else None,
        compute_units=whole(fields.get("Compute Unit")),
        apu=None if properties is None else "APU" in properties.split(),
    )


def _place(fields: dict[str, str]) -> str | None:
    """BDFID is bus << 8 | device << 3 | function; 1792 is 0000:07:00.0."""
    place = whole(fields.get("BDFID"))
    if not place or not 0 < place < 1 << 16:
        return None
    return f"0000:{place >> 8:02x}:{place >> 3 & 31:02x}.{place & 7}"


def _gpu(index: int, agent: Agent) -> Gpu:
    model = gfx.model(agent.chip_id)
    return Gpu(
        index=index,
        uuid=agent.uuid,
        name=agent.marketing_name,
        vendor=Vendor.AMD,
        memory_mib=agent.memory_mib,
        pci_bus_id=agent.pci_bus_id,
        gfx=agent.gfx,
        unified_memory=True if agent.apu or (model and model.unified_memory) else None,
    )


KINDS: tuple[Kind, ...] = (
    Kind(
        "rocminfo",
        "rocminfo",
        signature(
            r"^[ \t]*HSA (System Attributes|Agents)[ \t]*$|^[ \t]*Agent \d+[ \t]*$|"
            r"ROCk module is loaded|^[ \t]*Name:[ \t]+amdgcn-amd-amdhsa--gfx|"
            r"^[ \t]*BDFID:[ \t]+\d+[ \t]*$|"
            r"^[ \t]*Alloc Granule:[ \t]|"
            r"^[ \t]*(WatchPts on Addr\. Ranges|Acc?essible by all|Shader Arrs\. per Eng\.):|"
            r"^[ \t]*(Workgroup Max Size per Dimension|FBarrier Max Size|Max Waves Per CU):|"
            r"^[ \t]*Segment:[ \t]+(GLOBAL|GROUP)",
            sure=0.9,
        ),
        read_rocminfo,
        "rocminfo",
    ),
)
