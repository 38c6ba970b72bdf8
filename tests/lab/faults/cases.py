"""The faults: what is done, which reason must be told, and how many seconds each may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .bench import SHORT, STRANGER, UNIT, Bench

ALL, WORKERS, SIMULATED = ("vllm", "sglang", "llama"), ("vllm", "sglang"), ("vllm", "sglang")
LLAMA = ("llama",)
DEAD_S, FROZEN_S = 2.0, 15.0
STALL_S, CORROBORATED_S = SHORT["stall"], SHORT["corroborated"]
LATE_S = 1.0
"""What the lab's two cores may add to a bound that is a configured time."""
Act = Callable[[Bench], float]


@dataclass(frozen=True)
class Fault:
    """`act` hurts and tells when. `reasons`: () where nothing may restart, for `watch_s`.

    `short`: with shortened clocks. `load`: while requests run. `mend` is done once the verdict is
    there; without it the next engine is healthy by itself. `told`: in `make test` too.
    """

    name: str
    act: Act
    reasons: tuple[str, ...] = ()
    detect_s: float = DEAD_S
    shapes: tuple[str, ...] = ALL
    short: bool = True
    load: bool = False
    mend: Callable[[Bench], object] | None = None
    watch_s: float = 0.0
    told: bool = False
    evidence: bool = True


def kill(signal: str, find: Callable[[Bench], int]) -> Act:
    def act(bench: Bench) -> float:
        return bench.at_once(f"kill -{signal} {find(bench)}")

    return act


def control(**told: object) -> Act:
    return lambda bench: bench.control(**told)


def command(text: str) -> Act:
    return lambda bench: bench.at_once(text)


def worker(bench: Bench) -> int:
    name = {"vllm": "VLLM::Worker_TP", "sglang": "sglang::scheduler_TP"}[bench.shape]
    return bench.pids(f"^{name}")[-1]


def core(bench: Bench) -> int:
    return bench.pids({"vllm": "^VLLM::EngineCore", "sglang": "^sglang::engine"}[bench.shape])[0]


def device(signal: str) -> Act:
    """The ggml-rpc-server that is llama-server's second device."""
    return command(f"systemctl kill -s {signal} simulated-gpu@1")


def squat(bench: Bench) -> float:
    """A stranger takes the port while the service is down."""
    bench.run(f"systemctl stop {UNIT}; rm -f {bench.in_guest}/state/*.json")
    bench.run(f"systemd-run -q --collect --unit=stranger python3 {STRANGER} {bench.port}")
    bench.wait("squatted", lambda: bench.run(f"ss -ltn | grep :{bench.port}", False), 10)
    return bench.at_once(f"systemctl start --no-block {UNIT}")


def next_start(**told: object) -> Act:
    """A fault of the load: the service is started into it."""

    def act(bench: Bench) -> float:
        bench.run(f"systemctl stop {UNIT}; rm -f {bench.in_guest}/state/*.json")
        bench.control(later=True, **told)
        return bench.at_once(f"systemctl start --no-block {UNIT}")

    return act


def lose(bench: Bench) -> float:
    return bench.at_once("echo lost > /run/simulated-gpu/1/fault")


def xid(number: int) -> Act:
    """A kernel line, as the collector of the kernel log would pass it on (simulated)."""

    def act(bench: Bench) -> float:
        return bench.at_once(
            "mkdir -p /run/multigpu; chmod 755 /run/multigpu; now=$(date +%s.%N); "
            "up=$(cut -d' ' -f1 /proc/uptime); "
            "pci=$(sed -n 's/^pci_bus_id = //p' /etc/simulated-gpu/table.ini | tail -1); "
            'printf \'{"schema":1,"written_at":%s,"lost_records":0,"error":null,"gpus":{},"events":'
            '[{"at":%s,"pci":"%s","uuid":null,"xid":%s,"uptime_s":%s,"event":null,'
            '"text":"NVRM: Xid (PCI:%s): %s (simulated)"}]}\''
            f" $now $now $pci {number} $up $pci {number} > /run/multigpu/xid.json; "
            "chmod 644 /run/multigpu/xid.json"
        )

    return act


def full_disk(bench: Bench) -> float:
    """The state directory has no room left, for as long as the test holds it."""
    where = f"{bench.in_guest}/state"
    return bench.at_once(
        f"cp -a {where}/chat.json /run/kept.json; mount -t tmpfs -o size=8k,mode=755 tmpfs {where};"
        f" chown multigpu-chat:multigpu {where}; head -c 100000 /dev/zero > {where}/filler || true"
    )


def empty_disk(bench: Bench) -> None:
    bench.run(f"umount -l {bench.in_guest}/state", check=False)


ENGINE = "kill -9 of the engine"
RESTARTS = (
    Fault(ENGINE, kill("KILL", Bench.engine_pid), ("engine_exit",), short=False, told=True),
    Fault("kill -9 of a worker", kill("KILL", worker), ("engine_exit",), shapes=WORKERS,
          short=False, told=True),
    Fault("kill -9 of the engine core", kill("KILL", core), ("engine_exit",), shapes=WORKERS),
    Fault("kill -9 of a device process", device("KILL"), ("engine_exit",), shapes=LLAMA,
          load=True, short=False),
    Fault("kill -9 of the supervisor", kill("KILL", Bench.main_pid), ("signal",), short=False,
          told=True, evidence=False),
    Fault("SIGSTOP of the engine", kill("STOP", Bench.engine_pid), ("http_dead",), FROZEN_S,
          short=False, told=True),
    Fault("SIGSTOP of the supervisor", kill("STOP", Bench.main_pid), ("watchdog",), FROZEN_S,
          short=False, told=True, evidence=False),
    Fault("SIGSTOP of a worker, requests run", kill("STOP", worker), ("stalled",), STALL_S,
          shapes=WORKERS, load=True),
    Fault("SIGSTOP of a device process, requests run", device("STOP"), ("stalled",), STALL_S,
          shapes=LLAMA, load=True, mend=lambda b: b.run("systemctl kill -s CONT simulated-gpu@1")),
    Fault("stall with requests running", control(stall=True), ("stalled",), STALL_S,
          shapes=SIMULATED, load=True, told=True),
    Fault("stall with requests only waiting", control(waiting_only=True), ("stalled",), STALL_S,
          shapes=SIMULATED, load=True, told=True),
    Fault("stall, with the engine's own words and an Xid", lambda b: (xid(31)(b), b.control(
          stall=True, shm_s=1))[1], ("stalled",), CORROBORATED_S, shapes=("vllm",), load=True),
    Fault("port open but dead", control(mute=True), ("http_dead",), FROZEN_S, shapes=SIMULATED,
          short=False, told=True),
    Fault("listener closed, processes live", control(closed=True), ("http_dead",), FROZEN_S,
          shapes=SIMULATED, short=False),
    Fault("engine exits 0", control(exit=0), ("engine_exit",), shapes=SIMULATED, short=False),
    Fault("out of memory later", control(oom="later"), ("engine_exit",), 6.0, shapes=SIMULATED),
    Fault("out of memory at load", next_start(oom="load"), ("engine_exit",), 3.0,
          shapes=SIMULATED, mend=Bench.obey),
    Fault("never-ending load", next_start(load_s="never"), ("start_timeout",), 10.0,
          shapes=SIMULATED, mend=Bench.obey),
    Fault("port taken by a stranger who answers 200", squat, ("port_conflict",), 3.0, told=True,
          mend=lambda b: b.run("systemctl stop stranger"), evidence=False),
    Fault("GPU lost", lose, ("gpu_lost",), FROZEN_S, mend=Bench.obey),
)  # fmt: skip
PREFILL = f"stall time x 3 ({3 * STALL_S:g} s)"
HARMLESS = (
    Fault("long prefill with chunk counters, " + PREFILL, lambda b: long_prefill(b, True),
          shapes=SIMULATED, watch_s=3 * STALL_S + 3),
    Fault("long prefill without counters, " + PREFILL, lambda b: long_prefill(b, False),
          shapes=SIMULATED, watch_s=3 * STALL_S + 3, told=True),
    Fault("slow drip", control(token_s=STALL_S * 0.55), shapes=SIMULATED, load=True,
          watch_s=3 * STALL_S),
    Fault("long idle", command("true"), watch_s=2 * STALL_S),
    Fault("saturation: every answer takes long", control(slow_http_s=7), shapes=SIMULATED,
          load=True, watch_s=2 * STALL_S),
    Fault("compile pause with shm_broadcast lines", control(compile=True, shm_s=2),
          shapes=("vllm",), load=True, watch_s=3 * STALL_S, told=True),
    Fault("503 for a while", control(unavailable=True), shapes=SIMULATED,
          watch_s=4, mend=Bench.obey),
    Fault("Xid 13 while working", xid(13), load=True, watch_s=2 * CORROBORATED_S, told=True),
    Fault("disk full", full_disk, load=True, watch_s=8, mend=empty_disk),
    Fault("journald restarts", command("systemctl restart systemd-journald"), watch_s=3),
    Fault("dbus restarts", command("systemctl restart dbus"), watch_s=3),
    Fault("systemd re-executes itself", command("systemctl daemon-reexec"), watch_s=4, told=True),
)  # fmt: skip


def long_prefill(bench: Bench, chunks: bool) -> float:
    """One prompt of 3 x the stall time; nothing else runs."""
    at = bench.control(prefill_s=3 * STALL_S, chunks=chunks)
    ask = f'curl -s -d \'{{"prompt":"long"}}\' 127.0.0.1:{bench.port}/v1/completions'
    bench.run(f"systemd-run -q --collect --unit=load-{bench.port} {ask}")
    return at
