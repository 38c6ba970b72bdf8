"""What an NVIDIA Xid means, how far the harm reaches, and what to do.

Source: NVIDIA, "Analyzing Xid Errors with the Xid Catalog"
(docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html, catalogue of 2025-10-29): description
and immediate resolution. Codes that the catalogue calls unused are left out. An Xid explains what
went wrong; a service that still makes progress is no service to restart because of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Reach(StrEnum):
    """How far the harm reaches, least first."""

    NOTHING = "nothing"
    PROCESS = "process"
    GPU = "GPU"
    HOST = "host"


class Remedy(StrEnum):
    """The catalogue's immediate resolution, in our words."""

    NONE = "none"
    RESTART_PROCESS = "restart the process"
    RECOVERY_ACTION = "do what the GPU's recovery action says"
    RESET_GPU = "reset the GPU"
    RESTART_HOST = "restart the host"
    RESTART_VM = "restart the virtual machine"
    CHECK_POWER_CABLES = "check the power cables"
    UPDATE_DRIVER = "update driver and firmware"


@dataclass(frozen=True)
class Xid:
    """One row of the catalogue."""

    code: int
    meaning: str
    remedy: Remedy

    @property
    def reach(self) -> Reach:
        """What stops working: nothing, the process that used the GPU, the GPU, or the host."""
        return REACH[self.remedy]


REACH = {
    Remedy.NONE: Reach.NOTHING,
    Remedy.RESTART_PROCESS: Reach.PROCESS,
    Remedy.RECOVERY_ACTION: Reach.GPU,
    Remedy.RESET_GPU: Reach.GPU,
    Remedy.CHECK_POWER_CABLES: Reach.GPU,
    Remedy.UPDATE_DRIVER: Reach.GPU,
    Remedy.RESTART_VM: Reach.HOST,
    Remedy.RESTART_HOST: Reach.HOST,
}

_MEANINGS: dict[Remedy, dict[int, str]] = {
    # IGNORE in the catalogue: informs, or another Xid says more.
    Remedy.NONE: {
        37: "driver firmware error",
        38: "driver firmware error",
        43: "GPU stopped processing (the process was at fault; the GPU is well)",
        44: "graphics engine fault during a context switch",
        63: "GPU memory remapping event",
        66: "illegal access by the driver",
        67: "illegal access by the driver",
        92: "high rate of single-bit ECC errors",
        93: "InfoROM wear limit exceeded, not fatal",
        106: "SMBPBI test message",
        107: "SMBPBI test message, silent",
        121: "C2C (chip-to-chip link) error",
        137: "NVLink privilege error",
        141: "CUDA fast path error",
        152: "DLA SMMU error",
        153: "DLA timeout",
        157: "resource retirement failed",
        160: "channel retirement event",
        161: "channel retirement failed",
    },
    Remedy.RESTART_PROCESS: {
        8: "GPU stopped processing",
        11: "invalid or corrupted push buffer stream",
        13: "graphics engine exception",
        25: "invalid or illegal push buffer stream",
        31: "GPU memory page fault",
        32: "invalid or corrupted push buffer stream",
        **dict.fromkeys((39, 40, 41), "copy engine exception"),
        60: "video processor exception",
        68: "NVDEC0 exception",
        69: "graphics engine class error",
        **{code: f"copy engine {code - 67}: unknown error" for code in (70, 71, 72)},
        **{code: f"copy engine {code - 69}: unknown error" for code in (75, 76, 77)},
        80: "corrupted data sent to the GPU",
        82: "NVJPG0 error",
        83: "NVDEC1 error",
        84: "NVDEC2 error",
        85: "copy engine 9: unknown error",
        86: "OFA exception",
        88: "NVDEC3 error",
        89: "NVDEC4 error",
        94: "contained memory error",
        **{code: f"NVDEC{code - 91} error" for code in (96, 97, 98)},
        **{code: f"NVJPG{code - 98} error" for code in range(99, 106)},
        **{code: f"copy engine {code - 116}: unknown error" for code in range(126, 136)},
        139: "OFA1 error",
    },
    # WORKFLOW_... in the catalogue: what to do depends on the Xids beside it.
    Remedy.RECOVERY_ACTION: {
        45: "channel removed after an earlier error",
        48: "double-bit ECC error",
        74: "NVLink error",
        144: "NVLink 5: SAW error",
        145: "NVLink 5: RLW error",
        146: "NVLink 5: TLW error",
        147: "NVLink 5: TREX error",
        148: "NVLink 5: NVLPW_CTRL error",
        149: "NVLink 5: NETIR error",
        150: "NVLink 5: MSE error",
        154: "GPU recovery action changed (may be named for a healthy card beside the sick one)",
    },
    Remedy.RESET_GPU: {
        46: "GPU stopped processing",
        62: "internal micro-controller halt",
        64: "GPU memory remapping failed",
        95: "uncontained memory error",
        109: "context switch timeout",
        110: "security fault",
        119: "GSP (GPU system processor) does not answer",
        120: "GSP (GPU system processor) error",
        136: "NVLink training failed",
        140: "unrecovered ECC error",
        143: "GPU initialization error",
        155: "NVLink: error defined by software",
        156: "resource retirement event",
        158: "GPU fatal timeout",
    },
    Remedy.RESTART_HOST: {79: "GPU has fallen off the bus"},
    Remedy.RESTART_VM: {151: "key rotation error (confidential computing)"},
    Remedy.CHECK_POWER_CABLES: {54: "auxiliary power is not connected to the card"},
    Remedy.UPDATE_DRIVER: {78: "vGPU start error"},
}
XIDS = {
    code: Xid(code, meaning, remedy)
    for remedy, meanings in _MEANINGS.items()
    for code, meaning in meanings.items()
}


def xid(code: int | None) -> Xid | None:
    """The row of a code; None for one that the catalogue does not explain."""
    return None if code is None else XIDS.get(code)


def worst(codes: Iterable[int | None]) -> Xid | None:
    """The code whose harm reaches furthest; the first of several that reach as far."""
    known = [row for row in map(xid, codes) if row is not None]
    order = list(Reach)
    return max(known, key=lambda row: order.index(row.reach), default=None)
