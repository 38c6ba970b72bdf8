"""Pieces of the screens a person reads: text that wraps, tables that fit, words for values."""
