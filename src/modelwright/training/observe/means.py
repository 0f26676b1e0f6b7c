"""Several quick steps as one line: what a line says is then the mean since the one before."""

from __future__ import annotations

from modelwright.training.train import Record

KEYS = ("steps", "loss", "items", "bytes", "computed", "norm", "seconds")


class Means:
    """Joins the records of ``every`` steps.

    The sums of the steps that no line has told yet lie in ``totals``, a dictionary that goes into
    the checkpoint: so a run that is resumed between two lines writes the lines of an undisturbed
    one.
    """

    def __init__(self, every: int, totals: dict[str, float]) -> None:
        self.every, self.totals = every, totals
        for key in KEYS:
            totals.setdefault(f"line_{key}", 0)

    def forget(self) -> None:
        """Drop what no line has told yet."""
        self.totals.update(dict.fromkeys([f"line_{key}" for key in KEYS], 0))

    def add(self, record: Record, *, last: bool) -> list[tuple[Record, int]]:
        """Take a step in; what is to be told now, each with the number of steps it stands for.

        A step that is marked, as skipped or as a spike, is told by itself.
        """
        marked = record.skipped or record.spike
        if marked or (self.every == 1 and not self.totals["line_steps"]):
            return [*self._joined(record), (record, 1)] if marked else [(record, 1)]
        t = self.totals
        t["line_steps"] += 1
        t["line_loss"] += record.loss * record.items
        t["line_items"] += record.items
        t["line_bytes"] += record.bytes
        t["line_computed"] += record.computed
        t["line_norm"] += record.gradient_norm
        t["line_seconds"] += record.seconds
        if not last and record.step % self.every:
            return []
        return self._joined(record, at=record.step)

    def _joined(self, record: Record, at: int = 0) -> list[tuple[Record, int]]:
        """The steps that wait, up to ``at`` or to the one before ``record``."""
        t = {key: self.totals[f"line_{key}"] for key in KEYS}
        steps = int(t["steps"])
        if not steps:
            return []
        self.forget()
        joined = Record(
            step=at or record.step - 1,
            loss=t["loss"] / max(1, t["items"]),
            items=int(t["items"]),
            bytes=int(t["bytes"]),
            computed=int(t["computed"]),
            rate=record.rate,
            gradient_norm=t["norm"] / steps,
            seconds=t["seconds"],
        )
        return [(joined, steps)]
