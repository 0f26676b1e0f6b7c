"""Comparisons with peers, side by side: one file (or folder) a question, run by ``make bench``."""
