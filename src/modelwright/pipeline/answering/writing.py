"""Models that write their answers token by token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

from torch import nn

from modelwright.data.shards import open_shard
from modelwright.pipeline import samples, written
from modelwright.pipeline.answering.answerer import Answerer, Sampler
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.likelihood import likelihood
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run
from modelwright.serving.engine import Engine
from modelwright.serving.sampling import SamplingParams
from modelwright.types import Codec, Objective, Turn, rows_in, text_turn

SAMPLE_TOKENS = 48
BEGINNING = 16  # tokens of a document that is to be continued


class Writing(Answerer):
    """Text, by an ``Engine``: of all models that answer in no other way.

    Those that cannot, for want of a key/value cache, are measured all the same where the task is a
    stream of text; who asks them is told why.
    """

    @staticmethod
    def suits(codec: Codec, objective: Objective) -> bool:  # noqa: ARG004 - none other did
        """Whatever answers in no other way."""
        return True

    @property
    def tag(self) -> str:
        """The hub's "text-generation", of a decoder."""
        decoder = hasattr(self.model, "new_cache") and not hasattr(self.model, "encode")
        return "text-generation" if decoder else ""

    @cached_property
    def engine(self) -> Engine:
        """The engine that generates.

        Raises:
            ModelwrightError: the model does not generate text.
        """
        return Engine(self.model, self.codec)

    def server(self, *, max_waiting: int = 64, **settings: Any) -> Engine:
        """An engine with the settings of a server."""
        return Engine(self.model, self.codec, max_waiting=max_waiting, **settings)

    def answer(self, given: Sequence[Sequence[Turn]], **params: Any) -> list[Turn]:
        """The answers; ``params`` are those of ``SamplingParams``, greedy when left out."""
        return self.engine.answer(given, SamplingParams(**params))

    def complete(self, text: str, **params: Any) -> str:
        """The continuation of a document; ``params`` as of ``answer``."""
        (answer,) = self.answer([(text_turn("document", text),)], **params)
        return answer.text

    def sampler(self, run: Run, stage: str) -> Sampler | None:
        """Greedy answers to the recipe's question and two validation examples."""
        if not (prompts := self._prompts(run, stage)):
            return None

        def sample(model: nn.Module, step: int) -> None:
            params = SamplingParams(max_tokens=SAMPLE_TOKENS)
            answers = Engine(model, self.codec).answer(prompts, params)
            pairs = zip(prompts, answers, strict=True)
            records = [{"step": step, "prompt": p[-1].text, "text": a.text} for p, a in pairs]
            samples.keep(run, stage, records)

        return sample

    def _prompts(self, run: Run, stage: str) -> list[Sequence[Turn]]:
        if not hasattr(self.model, "new_cache"):
            return []
        folder = run.path / "data" / stage / "validation"
        prompts: list[Sequence[Turn]] = []
        codec = cast(Any, self.codec)
        if folder.exists():
            columns = open_shard(folder)
            for i in range(min(2, rows_in(columns))):
                encoded = {k: c[i] for k, c in columns.items()}
                if self.task.stream:
                    encoded = {k: c[:BEGINNING] for k, c in encoded.items()}
                    prompts.append(codec.example(encoded).turns)
                else:
                    prompts.append(codec.example(encoded).given)
        if run.recipe.ask and not self.task.stream:
            prompts.insert(0, self.task.question(run.recipe.ask))
        context = cast(Any, self.model).config.context
        return [p for p in prompts if len(codec.prompt(p)) < context]

    def measure(
        self, run: Run, stage: str, fitted: Fitted, result: dict[str, Any], say: Say
    ) -> None:
        """Bits per byte of documents; of questions, what the task measures of the answers."""
        measured = likelihood if self.task.stream else written.answers
        measured(run, stage, fitted, result, say)
