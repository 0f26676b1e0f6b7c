"""The evaluation room: how good a model is, and how good something trivial would be."""
