"""How loss falls with size and text: a sweep of small runs, the law fitted to it, its error."""
