"""Corpora: sets of data larger than memory, made by resumable units of work."""
