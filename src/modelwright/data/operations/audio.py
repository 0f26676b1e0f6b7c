"""Decode every recording whole; drop what is damaged, silent, clipped, or does not fit its text.

Rows of another modality pass. Attributes: audio.rate (samples a second), audio.channels,
audio.seconds, audio.silence and audio.clipping (shares), audio.level (dB of full scale), and
where there is a transcript audio.characters_per_second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from modelwright.data import sounds
from modelwright.data.operations.operation import Step, WorkRow
from modelwright.data.pictures import Undecodable

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Operation:
    """Checks of recordings.

    Attributes:
        rates: sample rates that are kept; empty for any.
        shortest: least seconds.
        longest: most seconds; a recording of more is not unpacked.
        silence: largest share of pieces of 20 ms that are silent.
        clipping: largest share of samples in runs at full scale.
        slowest: fewest characters of the transcript a second; read English has about 10 to 20,
            read Chinese 3 to 6.
        fastest: most characters a second; 0 for any.
        transcript: drop recordings without a text.
    """

    version: ClassVar[int] = 1

    rates: tuple[int, ...] = ()
    shortest: Annotated[float, Field(ge=0)] = 0.0
    longest: Annotated[float, Field(gt=0)] = sounds.SECONDS
    silence: Share = 1.0
    clipping: Share = 1.0
    slowest: Annotated[float, Field(ge=0)] = 0.0
    fastest: Annotated[float, Field(ge=0)] = 0.0
    transcript: bool = False

    def assets(self) -> dict[str, str]:
        """Nothing beside the row is read."""
        return {}

    def limits(self) -> dict[str, list[float]]:
        """Where the step decides, of the limits that are set."""
        ends = {
            "seconds": (self.shortest, 0.0),
            "silence": (self.silence, 1.0),
            "clipping": (self.clipping, 1.0),
        }
        found = {f"audio.{name}": [at] for name, (at, unset) in ends.items() if at != unset}
        if pace := [limit for limit in (self.slowest, self.fastest) if limit]:
            found["audio.characters_per_second"] = pace
        return found

    def begin(self) -> Step:
        """The check of one row."""
        return self._check

    def _check(self, row: WorkRow) -> str | None:
        if row.get("modality") != "audio":
            return None
        if not row.get("media"):
            return "no recording"
        try:
            samples, rate = sounds.decode(row["media"], seconds=self.longest)
        except Undecodable as error:
            row["attributes"]["audio.problem"] = str(error)
            limit = "limit" in str(error)
            return "recording too long" if limit else "recording cannot be decoded"
        seconds = len(samples) / rate
        measured: dict[str, float] = {
            "rate": rate,
            "channels": samples.shape[1],
            "seconds": seconds,
            "silence": sounds.silent_share(samples, rate),
            "clipping": sounds.clipped_share(samples),
            "level": sounds.level(samples),
        }
        spoken = len("".join((row.get("text") or "").split()))
        if spoken:
            measured["characters_per_second"] = spoken / seconds
        row["attributes"].update({f"audio.{k}": v for k, v in measured.items()})
        return self._reason(measured, spoken)

    def _reason(self, measured: dict[str, float], spoken: int) -> str | None:
        if self.rates and measured["rate"] not in self.rates:
            return "sample rate"
        if measured["seconds"] < self.shortest:
            return "recording too short"
        if measured["silence"] > self.silence:
            return "mostly silent"
        if measured["clipping"] > self.clipping:
            return "clipped"
        if not spoken:
            return "no transcript" if self.transcript else None
        pace = measured["characters_per_second"]
        if pace < self.slowest or (self.fastest and pace > self.fastest):
            return "transcript does not fit the length"
        return None
