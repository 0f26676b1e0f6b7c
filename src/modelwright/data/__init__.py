"""The data room: from files to rows, from rows to clean splits, from examples to arrays."""
