"""Published checkpoints: what they are called elsewhere, read strictly, and written back."""
