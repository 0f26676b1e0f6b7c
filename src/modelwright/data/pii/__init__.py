"""Finding and masking personal data and secrets in text, English and Chinese."""
