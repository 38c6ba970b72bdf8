"""Device files of a service: what its unit may open, and the groups that own them.

Nothing here was run on an AMD card. Sources: Linux' amdkfd driver (character device `kfd`) and DRM
(`drm`, major 226) as systemd.resource-control(5) names groups of /proc/devices; ROCm's
"Prerequisites" (members of `render` and `video` may use the GPUs; systemd's
50-udev-default.rules gives /dev/kfd and /dev/dri/renderD* to `render`, 60-drm.rules the links).
"""

from __future__ import annotations

from collections.abc import Iterable

from multigpu.backend import Backend, of_devices
from multigpu.plan import Plan

# Drivers before 550 or so list the cards as nvidia-frontend (as in NixOS' ollama module).
CUDA_DEVICES = (
    *("char-nvidia", "char-nvidia-frontend", "char-nvidiactl"),
    *("char-nvidia-uvm", "char-nvidia-caps"),
)
# HIP is not given the render node of one card alone: amdkfd hides the others then, and HIP would
# number what is left from 0 again.
HIP_DEVICES = ("char-kfd", "char-drm")
# NVIDIA's Vulkan driver opens its control devices and the mode setting one (the `graphics` set of
# the NVIDIA Container Toolkit), Mesa's the render nodes. A group that is not there is skipped.
VULKAN_DEVICES = (*CUDA_DEVICES, "char-nvidia-modeset", "char-drm")
ALLOWED: dict[Backend, tuple[str, ...]] = {
    Backend.CUDA: CUDA_DEVICES,
    Backend.HIP: HIP_DEVICES,
    Backend.VULKAN: VULKAN_DEVICES,
    Backend.CPU: (),
}
GROUPS = ("render", "video")
NODES: dict[Backend, tuple[str, ...]] = {
    Backend.CUDA: ("/dev/nvidiactl", "/dev/nvidia-uvm"),
    Backend.HIP: ("/dev/kfd", "/dev/dri"),
    Backend.VULKAN: ("/dev/dri",),
    Backend.CPU: (),
}


def device_allow(plan: Plan, gpus: Iterable[int]) -> tuple[str, ...]:
    """Words of DeviceAllow= for one process of a plan, none where its devices are remote.

    `gpus` are the NVML indices that it uses. A link by PCI address is followed when the unit
    starts, so it holds after cards were numbered anew at a boot.
    """
    if plan.gpu_addresses:
        address = dict(zip(plan.chosen.gpus, plan.gpu_addresses, strict=True))
        return tuple(f"/dev/dri/by-path/pci-{address[index]}-render" for index in gpus)
    return _each(plan, ALLOWED)


def groups(plan: Plan) -> tuple[str, ...]:
    """Words of SupplementaryGroups=; NVIDIA's own devices may be opened by everybody."""
    return GROUPS if backends(plan) & {Backend.HIP, Backend.VULKAN} else ()


def nodes(plan: Plan) -> tuple[str, ...]:
    """Paths that must be there before the service starts."""
    return _each(plan, NODES)


def backends(plan: Plan) -> frozenset[Backend]:
    """What the plan's processes reach their cards by, whatever the runtime: one, or several where
    the operator pinned `devices` of several and brought the build.
    """
    return of_devices(plan.wish.devices or ()) or frozenset({plan.backend})


def _each(plan: Plan, words: dict[Backend, tuple[str, ...]]) -> tuple[str, ...]:
    used = backends(plan)
    return tuple(dict.fromkeys(word for kind in Backend if kind in used for word in words[kind]))
