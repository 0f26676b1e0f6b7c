"""What a person sees of a training: records kept and sent, a live view, the costs of a step."""
