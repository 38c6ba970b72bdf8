"""Two machines at home. Change the names, the user and the models, then:

pyinfra inventories/homelab.py deploys/survey.py
pyinfra inventories/homelab.py deploys/plan.py
pyinfra inventories/homelab.py deploys/serve.py
"""

gpu_hosts = [
    ("tower", {"ssh_user": "ops"}),
    (
        "attic",
        {
            "ssh_user": "ops",
            # A path that begins with / lies on the host; a relative one is uploaded from here.
            "services": {"chat": {"model": "/srv/models/qwen3-14b-q4_k_m.gguf", "context": 16384}},
        },
    ),
]
