"""The kernel log's lines about GPUs and their links."""
