"""Every metric of the host's exporter, in one table: name, type, labels, unit and source.

`docs/metrics.md`, the dashboard and the alert rules are held to it. Names follow Prometheus'
"Metric and label naming": base units, `_total` for counters, 0 to 1 for ratios. A value that is
unknown is no sample, never 0.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Tuple

GAUGE, COUNTER = "gauge", "counter"
GPU = ("gpu", "uuid", "pci_address")
"""Every metric of a card has these: NVML's index, UUID, and `0000:01:00.0`; "" where unknown."""
SERVICE = ("service", "wish")
"""`service` is one process (a unit), `wish` the wished service that replicas share."""

THROTTLE_REASONS: Dict[int, str] = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h, nvmlClocksEventReasons)."""
RECOVERY_ACTIONS: Dict[int, str] = {
    0: "none",
    1: "gpu_reset",
    2: "node_reboot",
    3: "drain_p2p",
    4: "drain_and_reset",
    5: "imex",
    6: "bus_reset",
    7: "system_reboot",
}
"""Values of NVML field 230, GPU_RECOVERY_ACTION (nvml.h, nvmlDeviceGpuRecoveryAction_t)."""


class Metric(NamedTuple):
    """One metric; `source` says what is asked for it, in the words of that interface."""

    name: str
    kind: str
    help: str
    labels: Tuple[str, ...]
    source: str


class Sample(NamedTuple):
    """One value of a metric; labels that are missing are ""."""

    name: str
    labels: Dict[str, str]
    value: float


def _gpu(name: str, kind: str, help: str, source: str, *labels: str) -> Metric:
    return Metric(f"multigpu_gpu_{name}", kind, help, (*GPU, *labels), source)


def _service(name: str, kind: str, help: str, source: str, *labels: str) -> Metric:
    return Metric(f"multigpu_service_{name}", kind, help, (*SERVICE, *labels), source)


def _exporter(name: str, kind: str, help: str, *labels: str) -> Metric:
    return Metric(f"multigpu_exporter_{name}", kind, help, labels, "itself")


_NVML = "nvmlDeviceGet"
_LOG = "kernel log, multigpu-kernel-log.service"
_PLAN = "/etc/multigpu/<service>.plan.json"
_STATE = "state/<service>.json of the supervisor: "

EXPORTER_METRICS = (
    _exporter("build_info", GAUGE, "Always 1; what this exporter is.", "program", "python"),
    _exporter("scrape_duration_seconds", GAUGE, "Duration of the collection of this page."),
    _exporter(
        "source_up",
        GAUGE,
        "1 if the source answered within its deadline: nvml, amdgpu, services, kernel_log.",
        "source",
    ),
    _exporter("source_errors_total", COUNTER, "Answers that failed or came too late.", "source"),
    _exporter("source_duration_seconds", GAUGE, "Duration of the last answer.", "source"),
    _exporter(
        "source_waiting_seconds",
        GAUGE,
        "How long the question that has no answer yet has been open, 0 if none is.",
        "source",
    ),
    _exporter(
        "source_last_success_timestamp_seconds", GAUGE, "Unix time of the last answer.", "source"
    ),
)
GPU_METRICS = (
    _gpu(
        "info",
        GAUGE,
        "Always 1; what the card is.",
        "Name, nvmlSystemGetDriverVersion, sysfs",
        *("name", "vendor", "driver_version"),
    ),
    _gpu(
        "up",
        GAUGE,
        "1 if the card answers, 0 if it is lost or planned for and not there.",
        f"{_NVML}HandleByIndex, plan",
    ),
    _gpu("utilization_ratio", GAUGE, "Time with a kernel running.", f"{_NVML}UtilizationRates"),
    _gpu("memory_used_bytes", GAUGE, "Memory in use.", f"{_NVML}MemoryInfo_v2"),
    _gpu("memory_total_bytes", GAUGE, "Memory of the card.", f"{_NVML}MemoryInfo_v2"),
    _gpu("memory_reserved_bytes", GAUGE, "Memory kept by the driver.", f"{_NVML}MemoryInfo_v2"),
    _gpu("power_watts", GAUGE, "Power drawn.", f"{_NVML}PowerUsage, power1_average"),
    _gpu("power_limit_watts", GAUGE, "Limit in force.", f"{_NVML}EnforcedPowerLimit, power1_cap"),
    _gpu("temperature_celsius", GAUGE, "Temperature of the chip.", f"{_NVML}Temperature, temp1"),
    _gpu(
        "throttled",
        GAUGE,
        "1 for each reason for which clocks are held down now.",
        f"{_NVML}CurrentClocksEventReasons",
        "reason",
    ),
    _gpu("pcie_link_generation", GAUGE, "PCIe generation now.", f"{_NVML}CurrPcieLinkGeneration"),
    _gpu(
        "pcie_link_generation_max",
        GAUGE,
        "Highest PCIe generation of card and slot.",
        f"{_NVML}MaxPcieLinkGeneration",
    ),
    _gpu("pcie_link_width_lanes", GAUGE, "PCIe lanes now.", f"{_NVML}CurrPcieLinkWidth"),
    _gpu("pcie_link_width_max_lanes", GAUGE, "Most PCIe lanes.", f"{_NVML}MaxPcieLinkWidth"),
    _gpu(
        "ecc_errors_total",
        COUNTER,
        "Memory errors, corrected or uncorrected; volatile since the driver was loaded, or "
        "aggregate over the card's life.",
        f"{_NVML}TotalEccErrors, ras/umc_err_count",
        *("error", "counter"),
    ),
    _gpu(
        "remapped_rows",
        GAUGE,
        "Memory rows that were replaced.",
        f"{_NVML}RemappedRows",
        "error",
    ),
    _gpu(
        "remapped_rows_pending",
        GAUGE,
        "1 if a row waits for a reset to be replaced.",
        f"{_NVML}RemappedRows",
    ),
    _gpu("remapped_rows_failed", GAUGE, "1 if no row was left.", f"{_NVML}RemappedRows"),
    _gpu(
        "recovery_action",
        GAUGE,
        "1 for what the driver says the card needs.",
        f"{_NVML}FieldValues 230",
        "action",
    ),
    _gpu("processes", GAUGE, "Processes on the card.", f"{_NVML}ComputeRunningProcesses"),
    _gpu(
        "process_memory_bytes",
        GAUGE,
        "Memory of all processes on the card.",
        f"{_NVML}ComputeRunningProcesses",
    ),
    _gpu("xid_total", COUNTER, "Xid lines of NVIDIA's driver since the boot.", _LOG, "code"),
    _gpu(
        "xid_last_timestamp_seconds",
        GAUGE,
        "Unix time of the last Xid line of this code.",
        _LOG,
        "code",
    ),
    _gpu("kernel_events_total", COUNTER, "Other lines about the card.", _LOG, "event"),
    _gpu(
        "kernel_event_last_timestamp_seconds",
        GAUGE,
        "Unix time of the last such line.",
        _LOG,
        "event",
    ),
)
HOST_METRICS = (
    Metric("multigpu_kernel_log_lost_records_total", COUNTER, "Lines not read in time.", (), _LOG),
    Metric(
        "multigpu_host_fenced",
        GAUGE,
        "1 if nothing starts on this host until a person removes the fence.",
        (),
        "/var/lib/multigpu/fenced",
    ),
)
SERVICE_METRICS = (
    _service("state_readable", GAUGE, "1 if the supervisor's state file is whole.", _STATE + "all"),
    _service(
        "info",
        GAUGE,
        "Always 1; what runs.",
        _STATE + "runtime, revision",
        *("runtime", "revision"),
    ),
    _service(
        "plan_info",
        GAUGE,
        "Always 1; what is planned.",
        _PLAN,
        *("runtime", "revision", "model", "strategy", "simulated"),
    ),
    _service("state", GAUGE, "1 for the state that the service is in.", _STATE + "state", "state"),
    _service("state_since_timestamp_seconds", GAUGE, "Unix time of that.", _STATE + "since"),
    _service("state_age_seconds", GAUGE, "Age of the state file.", "its modification time"),
    _service("processes", GAUGE, "Processes of the unit, 0 if it is down.", "cgroup.procs"),
    _service("restarts_total", COUNTER, "Restarts by the verdict.", _STATE + "restarts", "reason"),
    _service(
        "last_verdict_timestamp_seconds",
        GAUGE,
        "Unix time of the last verdict.",
        _STATE + "last_verdict",
        "reason",
    ),
    _service("progress_age_seconds", GAUGE, "Since the counters moved.", _STATE + "progress_at"),
    _service("tokens_total", COUNTER, "Tokens read and written.", _STATE + "tokens_total"),
    _service("requests_running", GAUGE, "Requests that are served.", _STATE + "running"),
    _service("requests_waiting", GAUGE, "Requests in the queue.", _STATE + "waiting"),
    _service("kv_usage_ratio", GAUGE, "Share of the KV cache in use.", _STATE + "kv_usage"),
    _service("load_seconds", GAUGE, "Start to ready, the last time.", _STATE + "load_s"),
    _service("failed_starts", GAUGE, "Starts in a row that failed.", _STATE + "backoff.n"),
    _service("backoff_until_timestamp_seconds", GAUGE, "Next start.", _STATE + "backoff.until"),
    _service("fenced", GAUGE, "1 if a person must remove its fence.", "<wish>/fenced"),
    Metric(
        "multigpu_service_gpu_memory_predicted_bytes",
        GAUGE,
        "What the plan says that the service holds on the card.",
        (*SERVICE, *GPU),
        _PLAN,
    ),
    Metric(
        "multigpu_service_gpu_memory_used_bytes",
        GAUGE,
        "What the processes of its unit hold on the card.",
        (*SERVICE, *GPU),
        "nvmlDeviceGetComputeRunningProcesses, cgroup.procs",
    ),
)
METRICS: Tuple[Metric, ...] = (
    *EXPORTER_METRICS,
    *GPU_METRICS,
    *HOST_METRICS,
    *SERVICE_METRICS,
)
BY_NAME: Dict[str, Metric] = {metric.name: metric for metric in METRICS}
