"""NCCL and RCCL logs, and tests of bandwidth between cards."""
