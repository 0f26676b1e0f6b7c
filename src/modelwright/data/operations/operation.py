"""What a step of a corpus does to one row: change it, annotate it, or say why it leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

WorkRow = dict[str, Any]  # a row while it is worked on; see corpus/records.py for its columns
Step = Callable[[WorkRow], str | None]


class Operation(Protocol):
    """A step by its settings: a frozen dataclass ``Operation`` in a module of this room.

    A recipe names the module; its settings are the dataclass's fields. The settings, ``version``
    and the hashes of ``assets`` make the step's fingerprint, so what is the same is not done
    again. Raise ``version`` whenever the same row would come out otherwise.
    """

    version: ClassVar[int]

    def assets(self) -> dict[str, str]:
        """Name -> hash of everything it reads beside the row: models, word lists, indexes."""
        ...

    def begin(self) -> Step:
        """Load what is needed, once a process; return the function for every row.

        The function may change the row, writes what it measured to ``row["attributes"]`` under
        "operation.measure" (numbers, strings, or lists of them), and returns None to keep the
        row or a short phrase shared by all rows that leave for the same cause.
        """
        ...
