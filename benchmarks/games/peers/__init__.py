"""The peers, each driven by a script of its own."""
