"""Programs that run on the GPU host: stdlib and nvidia-ml-py only, Python 3.9 or newer.

They gather and act; they never decide. Nothing here imports the rest of `multigpu`.
"""
