"""Broken texts for every reader: cut, mutated, spliced. A value or a clear error, no traceback."""
