"""A fleet in waves: one canary first, the rest when it holds.

    pyinfra inventories/fleet.py deploys/serve.py --dry
    pyinfra inventories/fleet.py deploys/serve.py -y --limit canary --fail-percent 0 \\
      && pyinfra inventories/fleet.py deploys/serve.py -y --exclude canary --fail-percent 10

Data for all of them: group_data/fleet.py (pyinfra names a group after this file).
"""

canary = ["gpu-01.example.net"]

rest = [f"gpu-{number:02}.example.net" for number in range(2, 9)]
