"""What a run shows a person: one self-contained page, and runs beside each other."""
