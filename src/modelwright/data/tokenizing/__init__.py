"""Tokenizers: trained, loaded, and applied to text at the speed of the machine."""
