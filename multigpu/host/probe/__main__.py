"""`python -m multigpu.host.probe`."""

from multigpu.host.probe import main

main()
