"""The machines of the tests, one literal each."""

from __future__ import annotations

from multigpu.hardware import GpuPair, KernelEvent, P2p, Path
from tests.hosts.parts import (
    A100,
    A6000,
    BRIDGE,
    FIFTH,
    FIRST,
    FOURTH,
    NVLINKS_3090,
    PCH_SLOT,
    PROMONTORY_SLOT,
    REFUSED,
    RTX_3090,
    RTX_4090,
    RTX_5090,
    SECOND,
    SWITCH,
    TENANTS,
    THIRD,
    at,
    bridged,
    h100,
    hives,
    host,
    mi210,
    pcie,
    port,
    rx_7900_xtx,
)
from tests.rigs.dialect import Dialect
from tests.rigs.rig import Rig

BROKEN = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that "
    "the latest NVIDIA driver is installed and running."
)
NEWEST = {"driver": "595.71.05", "cuda": "13.2"}

MACHINES: tuple[Rig, ...] = (
    Rig(
        host(
            "2x4090-no-p2p",
            at(RTX_4090, "0000:01:00.0", FIRST),
            at(RTX_4090, "0000:41:00.0", THIRD),
            link=REFUSED,
            cpus=48,
        )
    ),
    Rig(
        host(
            "4090+3090",
            at(RTX_4090, "0000:01:00.0", port("0000:00:01.0", vendor="0x8086", device="0xa70d")),
            at(RTX_3090, "0000:04:00.0", *PCH_SLOT, width=4, power_limit_w=300.0),
            link=REFUSED,
            memory_mib=64_000,
            **NEWEST,
        ),
        Dialect(driver=NEWEST["driver"], cuda=NEWEST["cuda"]),
    ),
    Rig(
        host(
            "2x3090-nvlink",
            at(RTX_3090, "0000:01:00.0", FIRST, **NVLINKS_3090),
            at(RTX_3090, "0000:41:00.0", THIRD, **NVLINKS_3090),
            link=BRIDGE,
        )
    ),
    Rig(
        host(
            "2x3090-x4",
            at(RTX_3090, "0000:01:00.0", FIRST),
            at(RTX_3090, "0000:08:00.0", *PROMONTORY_SLOT, width=4),
            link=REFUSED,
            memory_mib=64_000,
        )
    ),
    Rig(
        host(
            "4x3090-two-bridges",
            at(RTX_3090, "0000:01:00.0", FIRST, **NVLINKS_3090),
            at(RTX_3090, "0000:21:00.0", SECOND, **NVLINKS_3090),
            at(RTX_3090, "0000:81:00.0", FOURTH, numa=1, **NVLINKS_3090),
            at(RTX_3090, "0000:a1:00.0", FIFTH, numa=1, **NVLINKS_3090),
            link=bridged,
            cpus=64,
            numa_nodes=2,
            memory_mib=256_000,
        )
    ),
    Rig(
        host(
            "8xH100-nvswitch",
            *(h100(index) for index in range(8)),
            link=SWITCH,
            nics=("NIC0", "NIC1"),
            cpus=208,
            numa_nodes=2,
            memory_mib=2_048_000,
            product="PowerEdge XE9680",
        )
    ),
    Rig(host("1x4090", at(RTX_4090, "0000:01:00.0", FIRST), memory_mib=64_000)),
    Rig(
        host(
            "no-gpu-driver-broken",
            at(RTX_3090, "0000:01:00.0", FIRST),
            at(RTX_3090, "0000:02:00.0", port("0000:00:01.2")),
        ),
        refusal=(9, BROKEN),
    ),
    Rig(
        host(
            "2x3090-one-lost",
            at(RTX_3090, "0000:01:00.0", FIRST),
            at(RTX_3090, "0000:41:00.0", THIRD),
            kernel_events=(
                KernelEvent(
                    "xid",
                    address="0000:41:00.0",
                    code=79,
                    text="GPU has fallen off the bus.",
                    time="1795430000.125000",
                    pid=3120,
                    process="llama-server",
                ),
            ),
        ),
        refusal=(15, "Unable to determine the device handle for GPU0000:41:00.0: Unknown Error"),
        unlisted=(1,),
    ),
    Rig(
        host(
            "5090+3090",
            at(RTX_5090, "0000:01:00.0", FIRST, processes=TENANTS, display_attached=True),
            at(RTX_3090, "0000:41:00.0", THIRD),
            link=REFUSED,
            **NEWEST,
        ),
        Dialect(driver=NEWEST["driver"], cuda=NEWEST["cuda"]),
    ),
    Rig(
        host(
            "3x3090",
            at(RTX_3090, "0000:01:00.0", FIRST),
            at(RTX_3090, "0000:21:00.0", SECOND),
            at(RTX_3090, "0000:41:00.0", THIRD),
            link=REFUSED,
            iommu="translating",
            cpus=48,
        )
    ),
    Rig(
        host(
            "a6000+3090",
            at(A6000, "0000:01:00.0", FIRST),
            at(RTX_3090, "0000:41:00.0", THIRD),
            link=REFUSED,
        )
    ),
    Rig(
        host(
            "2x4090-vm",
            at(RTX_4090, "0000:01:00.0", port("0000:00:1c.0"), width=8),
            at(RTX_4090, "0000:02:00.0", port("0000:00:1c.1"), width=8),
            link=REFUSED,
            virtualization="kvm",
            iommu="off",
            product="Standard PC (Q35 + ICH9, 2009)",
        )
    ),
    Rig(
        host(
            "2xA100-mig",
            at(A100, "0000:17:00.0", port("0000:16:01.0")),
            at(A100, "0000:65:00.0", port("0000:64:01.0"), mig=True),
            link=pcie(Path.NODE, P2p.OK),
            cpus=64,
        )
    ),
    Rig(
        host(
            "2x7900xtx",
            rx_7900_xtx(0),
            rx_7900_xtx(1),
            link=lambda a, b: GpuPair(a, b, Path.PHB, p2p_read=P2p.OK, xgmi_links=0),
            driver=None,
            cuda=None,
            rocm="6.4.1",
        )
    ),
    Rig(
        host(
            "8xMI210-two-hives",
            *(mi210(index) for index in range(8)),
            link=hives,
            driver=None,
            cuda=None,
            rocm="6.4.1",
            cpus=128,
            numa_nodes=2,
            memory_mib=1_024_000,
        )
    ),
)
