"""The training room: one loop, and what it is given."""
