"""The serving room: from a request to an answer, over HTTP or in this process."""
