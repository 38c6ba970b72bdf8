"""Readers: what tools print becomes values.

Pure functions of text. A value that a tool does not give is None, a broken card keeps its row, and
no text at all makes a reader raise anything but `multigpu.errors.CaptureError`.
"""
