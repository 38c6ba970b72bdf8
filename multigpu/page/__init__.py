"""The page of a plan: what was chosen, its numbers, what lost to it, and how to overturn it.

Plain text of at most 80 columns that a person can forward and a log file keeps. Each section is a
module with functions from a plan to lines; `multigpu.explain` puts them together.
"""
