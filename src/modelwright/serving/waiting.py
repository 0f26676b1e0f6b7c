"""Who is next: requests that wait, client by client in turn."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator

from modelwright.serving.row import Row

PREFILL_TOKENS = 2048  # read in one step, padding included: bounds the wait of the others


class Waiting:
    """Rows in the order in which they are to be begun.

    Clients take turns, and the rows of one client keep their order: who asks for a hundred
    answers at once delays the next one's first by one.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._queues: dict[str, deque[Row]] = {}  # of clients; the first one is next
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def __iter__(self) -> Iterator[Row]:
        for queue in self._queues.values():
            yield from queue

    def append(self, row: Row) -> None:
        """Let a row wait behind those of its client."""
        self._queues.setdefault(row.request.client, deque()).append(row)

    def drop(self, rows: Iterable[Row]) -> None:
        """Take out some rows that wait."""
        for row in rows:
            queue = self._queues[row.request.client]
            queue.remove(row)
            if not queue:
                del self._queues[row.request.client]

    def clear(self) -> None:
        """Take out all."""
        self._queues.clear()

    def _next(self) -> tuple[str, deque[Row]]:
        return next(iter(self._queues.items()))

    def group(self, free: int, tokens: float = math.inf) -> list[Row]:
        """Take out the rows to begin now: as fit ``free`` places and one step of reading.

        They come to hold at most ``tokens`` tokens together. Who is next and does not fit is waited
        for, so that long requests are not passed over for ever.
        """
        group: list[Row] = []
        longest = 0
        while self._queues and len(group) < free:
            client, queue = self._next()
            longest = max(longest, len(queue[0].request.tokens))
            if group and longest * (len(group) + 1) > PREFILL_TOKENS:
                break
            tokens -= queue[0].room
            if tokens < 0:
                break
            group.append(queue.popleft())
            del self._queues[client]  # its next turn comes after that of the others
            if queue:
                self._queues[client] = queue
        return group
