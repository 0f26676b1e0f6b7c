"""Models whose answers are recordings: texts spoken, and spectra made sound."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

from torch import nn

from modelwright.data.pictures import pillow
from modelwright.pipeline import spoken
from modelwright.pipeline.answering.answerer import Answerer, Sampler
from modelwright.pipeline.answering.predicting import Predicting
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run
from modelwright.serving.speech import AT_ONCE, SpeechMaker
from modelwright.types import Codec, Objective, Turn


class Speaking(Answerer):
    """Texts spoken, by the flow of a model and the vocoder that its task names."""

    suffix = ".wav"
    at_once = AT_ONCE

    @staticmethod
    def suits(codec: Codec, objective: Objective) -> bool:  # noqa: ARG004 - the codec says it
        """Whether the codec makes frames as a vocoder reads them."""
        return hasattr(codec, "log_mel")

    @cached_property
    def maker(self) -> SpeechMaker:
        """The policy itself.

        Raises:
            ModelwrightError: the vocoder that the task names is not there, or of other frames.
        """
        vocoder = spoken.vocoder_of(self.task, cast(Any, self.codec).settings)
        return SpeechMaker.of(self.model, self.codec, vocoder, self.task)

    @property
    def tag(self) -> str:
        """The hub's "text-to-speech"."""
        return "text-to-speech"

    def answer(self, given: Sequence[Sequence[Turn]], **params: Any) -> list[Turn]:
        """The speech of each text.

        Of ``params`` a ``seed`` is taken, for all of them, and a ``speed``, by which the task's
        pace is multiplied; ``seen`` is told the speech of the only text, sentence by sentence.
        """
        changes: dict[str, Any] = {}
        if (seed := params.get("seed")) is not None:
            changes["seed"] = seed
        if (speed := params.get("speed")) is not None:
            changes["pace"] = speed * self.maker.speaking.pace
        maker = self.maker.changed(**changes) if changes else self.maker
        return maker.answer(given, params.get("seen"))

    def content(self, answer: Turn) -> bytes:
        """The recording as a WAV file."""
        return spoken.content(answer)

    def sampler(self, run: Run, stage: str) -> Sampler | None:
        """Recordings of the recipe's question and of sentences of validation, and their spectra."""
        if not (given := spoken.prompts(run, stage, self.codec, self.task)):
            return None
        vocoder = self.maker.vocoder
        pillow()  # which draws the spectra: better said now than at the first sample

        def sample(model: nn.Module, step: int) -> None:
            maker = SpeechMaker.of(model, self.codec, vocoder, self.task)
            spoken.sample(run, stage, step, maker, given)

        return sample

    def measure(
        self, run: Run, stage: str, fitted: Fitted, result: dict[str, Any], say: Say
    ) -> None:
        """How far speech is from recordings, how long it takes, and what is understood."""
        spoken.judged(run, stage, fitted, result, maker=self.maker, say=say)


class Vocoding(Predicting):
    """Recordings made of the spectra of recordings, in one pass."""

    suffix = ".wav"

    @staticmethod
    def suits(codec: Codec, objective: Objective) -> bool:  # noqa: ARG004 - the codec says it
        """Whether the codec's answers are recordings made of scaled frames."""
        return hasattr(codec, "decode") and hasattr(codec, "standardised")

    def content(self, answer: Turn) -> bytes:
        """The recording as a WAV file."""
        return spoken.content(answer)
