"""Where labels come from, how far they can be trusted, and which ones look wrong."""
