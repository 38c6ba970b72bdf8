"""Entry of the program archive on a GPU host: `python3 multigpu-host.pyz COMMAND ...`."""

from __future__ import annotations

import sys

from multigpu.host import (
    devices,
    exporter,
    fetch,
    gave_up,
    install,
    kernel_log,
    observe,
    react,
    supervisor,
    transaction,
    unfence,
)

COMMANDS = {
    "supervise": supervisor.main,
    "observe": observe.main,
    "fetch": fetch.main,
    "install": install.main,
    "devices": devices.main,
    "ended": gave_up.ended,
    "gave-up": gave_up.gave_up,
    "transact": transaction.main,
    "react": react.main,
    "unfence": unfence.main,
    "exporter": exporter.main,
    "kernel-log": kernel_log.main,
}


def main(argv: list[str]) -> int:
    """Run one command. Returns the exit status; 2 when the command is not known."""
    if len(argv) < 2 or argv[1] not in COMMANDS:
        print(f"usage: {argv[0]} {{{','.join(COMMANDS)}}} ...", file=sys.stderr)
        return 2
    return COMMANDS[argv[1]](argv[2:])


if __name__ == "__main__":
    sys.exit(main(sys.argv))
