"""modelwright: develop and fine-tune a large model from zero."""

__version__ = "0.1.0"
