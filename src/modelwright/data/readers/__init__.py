"""Readers of a corpus, one kind of file each; a recipe names a module of this room."""
