"""Real systemd hosts with sshd and simulated GPUs, on this machine.

    lab.py up MACHINE...           bring up one host per machine (NAME=MACHINE names it)
    lab.py up --hosts N            N hosts, of the machines in turn
    lab.py ssh HOST [CMD...]       a shell or a command on a host
    lab.py exec -- CMD...          a command on the controller's side, where the hosts answer
    lab.py status                  hosts, addresses, state
    lab.py break HOST STATE        no-driver, hang, latin1, python; none mends
    lab.py reset HOST              a fresh disk and a boot
    lab.py down                    remove everything but the cache
    lab.py prepare                 install and build what `up` needs, nothing else

Root on Debian or Ubuntu. Exit code 2: it did not work; 3: the lab is not possible here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from bed import cluster, faults, hosts, machines, network
from bed.client import Lab
from bed.settings import LabError, LabNotPossible, Settings
from bed.shell import environment, say

SETTINGS = Settings()


def main() -> int:
    options = arguments()
    try:
        return COMMANDS[options.command](options) or 0
    except LabNotPossible as error:
        say(f"lab not possible here: {error}")
        return 3
    except LabError as error:
        say(str(error))
        return 2


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lab.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up")
    up.add_argument("machines", nargs="*", metavar="MACHINE", help=", ".join(machines.names()))
    up.add_argument("--hosts", type=int, metavar="N")
    for name in ("down", "status", "prepare"):
        commands.add_parser(name)
    for name, words in (("ssh", "*"), ("exec", "+")):
        command = commands.add_parser(name)
        if name == "ssh":
            command.add_argument("host")
        command.add_argument("words", nargs=argparse.REMAINDER if words == "*" else "+")
    broken = commands.add_parser("break")
    broken.add_argument("host")
    broken.add_argument("state", choices=[*faults.STATES, "none"])
    commands.add_parser("reset").add_argument("host")
    return parser.parse_args()


def wanted(options: argparse.Namespace) -> list[str]:
    """The machines asked for; two hosts, one of each, when nothing is said."""
    known = machines.names()
    if options.machines:
        return list(options.machines)
    return [known[number % len(known)] for number in range(options.hosts or 2)]


def up(options: argparse.Namespace) -> None:
    started = time.monotonic()
    rows = cluster.up(SETTINGS, wanted(options))
    for row in rows:
        say(f"{row.name} is up at {row.ip}, a simulated {row.machine}")
    say(f"{len(rows)} hosts in {time.monotonic() - started:.1f} s")


def down(_: argparse.Namespace) -> None:
    cluster.down(SETTINGS)
    if left := cluster.leftovers(SETTINGS):
        raise LabError(f"still here: {'; '.join(left)}")
    say("nothing is left but the cache")


def status(_: argparse.Namespace) -> None:
    lab = Lab.running(SETTINGS)
    for row in lab.hosts:
        state = lab.run(row.name, "systemctl is-system-running", check=False).stdout.strip()
        print(f"{row.name}\t{row.ip}\t{row.machine}\t{state or 'does not answer'}")


def prepare(_: argparse.Namespace) -> None:
    for path in vars(cluster.prepare(SETTINGS)).values():
        say(f"ready: {path}")


def ssh(options: argparse.Namespace) -> int:
    host = Lab.running(SETTINGS).host(options.host)
    return subprocess.call(hosts.ssh(SETTINGS, host.name, *options.words), env=environment())


def execute(options: argparse.Namespace) -> int:
    Lab.running(SETTINGS)
    os.execvpe("nsenter", [*network.inside(SETTINGS), *options.words], environment())


def break_host(options: argparse.Namespace) -> None:
    Lab.running(SETTINGS).break_host(options.host, options.state)


def reset(options: argparse.Namespace) -> None:
    Lab.running(SETTINGS).reset(options.host)


COMMANDS = {
    "up": up, "down": down, "status": status, "prepare": prepare, "ssh": ssh, "exec": execute,
    "break": break_host, "reset": reset,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
