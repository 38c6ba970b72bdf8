"""One fault, from the injection to the answer: seconds, reason, orphans, records, files."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from .bench import UNIT, Bench
from .cases import Fault

SERVE_AGAIN_S = 40.0


@dataclass(frozen=True)
class Result:
    """A row of the table. None: it does not apply."""

    fault: str
    shape: str
    short: bool
    detect_s: float | None = None
    bound_s: float | None = None
    serve_s: float | None = None
    orphans: int = 0
    reason: str = ""
    reported: str = ""
    false_verdicts: int = 0
    broken: tuple[str, ...] = ()


def measured(bench: Bench, fault: Fault) -> Result:
    """Never raises: what is broken stands in the result."""
    try:
        bench.fresh(fault.short)
        before, files = bench.records(), bench.files()
        with bench.load() if fault.load else contextlib.nullcontext():
            result = (restarted if fault.reasons else unharmed)(bench, fault, before)
        return lost(bench, result, files)
    except (AssertionError, OSError, IndexError, ValueError) as error:
        return Result(fault.name, bench.shape, fault.short, broken=(str(error)[:300],))
    finally:
        with contextlib.suppress(AssertionError):
            bench.obey()


def restarted(bench: Bench, fault: Fault, before: int) -> Result:
    at = fault.act(bench)
    bench.wait("noticed", lambda: bench.records() > before, fault.detect_s + 25)
    seen = bench.state()
    verdict = seen["last_verdict"]
    if fault.mend:
        fault.mend(bench)
    bench.wait("serving again", lambda: newly_ready(bench, verdict["at"]), SERVE_AGAIN_S)
    ready = bench.state()["ready_at"] - at
    answers = bench.answers()
    detect = verdict["at"] - at
    count = bench.records() - before
    broken = []
    if verdict["reason"] not in fault.reasons:
        broken.append(f"reason {verdict['reason']}: {verdict['text']}")
    if detect > fault.detect_s + slack(fault):
        broken.append(f"detected after {detect:.1f} s")
    if count != 1:
        broken.append(f"{count} restart records")
    if not answers:
        broken.append("does not answer")
    reported, missing = told(bench, fault, verdict)
    return Result(
        fault.name, bench.shape, fault.short, detect, fault.detect_s, ready,
        reason=verdict["reason"], reported=reported, broken=(*broken, *missing),
    )  # fmt: skip


def slack(fault: Fault) -> float:
    return 0.0 if fault.detect_s in (2.0, 15.0) else 1.0


def newly_ready(bench: Bench, since: float) -> bool:
    now = bench.state()
    return now.get("state") == "serving" and (now.get("ready_at") or 0) > since


def told(bench: Bench, fault: Fault, verdict: dict[str, object]) -> tuple[str, tuple[str, ...]]:
    """Where the reason was said, and where it should have been."""
    said, missing = ["state"], []
    lines = bench.run(f"journalctl -q -o cat -u {UNIT} -n 400", check=False)
    text = str(verdict["text"]).split("\n")[0][:60]
    if verdict["exit_status"] is not None:
        said.append(f"exit {verdict['exit_status']}")
    (said if text and text in lines else missing).append("journal")
    if fault.evidence:
        kept = (bench.directory / "evidence").glob("*.json")
        (said if any(str(verdict["reason"]) in path.name for path in kept) else missing).append(
            "evidence"
        )
    return ", ".join(said), tuple(f"no {name} line of the reason" for name in missing)


def unharmed(bench: Bench, fault: Fault, before: int) -> Result:
    main = bench.main_pid()
    fault.act(bench)
    deadline = time.monotonic() + fault.watch_s
    while time.monotonic() < deadline and bench.records() == before:
        time.sleep(0.2)
    false = bench.records() - before
    why = bench.state().get("last_verdict") or {}
    if fault.mend:
        fault.mend(bench)
    bench.obey()
    broken = [f"restarted: {why.get('reason')}: {why.get('text')}"] if false else []
    if bench.main_pid() != main:
        broken.append("another process serves")
    bench.wait("answering", bench.answers, 30)
    return Result(fault.name, bench.shape, fault.short, false_verdicts=false,
                  reason=str(why.get("reason", "")), broken=tuple(broken))  # fmt: skip


def lost(bench: Bench, result: Result, files: str) -> Result:
    """Nothing lost: files as they were, one engine, nothing outside of the unit."""
    from dataclasses import replace

    orphans, broken = bench.orphans(), list(result.broken)
    if orphans:
        broken.append(f"orphans {orphans}")
    if bench.files() != files:
        broken.append("managed files differ")
    if (bench.directory / "fenced").exists():
        broken.append("fenced")
    return replace(result, orphans=len(orphans), broken=tuple(broken))
