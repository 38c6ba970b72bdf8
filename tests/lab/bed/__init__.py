"""The lab: real systemd and sshd hosts on one root machine, with simulated GPUs.

- `settings`: where everything lies and what it is called; the errors
- `shell`: running commands, visibly where they take long
- `needs`: what this machine must offer, and installing what is missing
- `cache`: artefacts that are built once and shared by all checkouts
- `base_image`: the guest's Debian, as a tar
- `wheel`: the llama.cpp wheel that plays the cards and the server
- `network`: namespaces, one bridge, no uplink
- `cgroups`: where a host's processes go, with and without systemd on this machine
- `machines`: the tables of simulated machines
- `pci`: a sysfs tree of the PCI devices of a machine
- `gpus`: everything in a guest that makes the simulated cards
- `hosts`: one host: its disk, boot, stop
- `faults`: breaking a host's tools and mending them
- `cluster`: the whole lab: prepare, up, down, status
- `client`: what tests and people do with a lab that is up
"""

import sys
from pathlib import Path

# `lab.py` is run as a program, and the checkout is not on its path then.
CHECKOUT = str(Path(__file__).resolve().parents[3])
if CHECKOUT not in sys.path:
    sys.path.insert(0, CHECKOUT)
