"""The loops and methods that are compared with, each a script."""
