"""Tasks: what is learned, one a file; found by module name."""
