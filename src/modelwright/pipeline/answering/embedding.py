"""Models whose answer to a text is a vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.pipeline.answering.answerer import Answerer
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.predicted import stored, together
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run
from modelwright.serving.predictor import AT_ONCE, Predictor
from modelwright.types import Codec, Example, Number, Objective, Policy, Turn, text_turn

SHOWN = 8  # examples kept for the report
FEW = 6  # numbers that are said of a vector


class Embedding(Answerer):
    """Vectors of length 1, as the objective makes them; a text's turn in, its numbers out."""

    at_once = AT_ONCE

    @staticmethod
    def suits(codec: Codec, objective: Objective) -> bool:  # noqa: ARG004 - the objective says it
        """Whether vectors are what was learned."""
        return bool(getattr(objective, "embeds", False))

    def vectors(self, texts: Sequence[Sequence[Turn]]) -> tuple[NDArray[np.float32], int]:
        """A vector of each text, (texts, width), and the tokens of all."""
        predictor = Predictor(self.model, self.codec, self.objective)
        found, count = predictor.vectors(texts)
        return np.asarray(found, dtype=np.float32), count

    def answer(self, given: Sequence[Sequence[Turn]], **params: Any) -> list[Turn]:  # noqa: ARG002
        """The vector of each text as numbers; of turns the first is the text."""
        found, _ = self.vectors([turns[:1] for turns in given])
        return [Turn("assistant", tuple(Number(float(v)) for v in row)) for row in found]

    def value(self, answer: Turn) -> list[float]:
        """The vector."""
        return list(answer.numbers)

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """Vectors of texts for a server, and how many tokens they have."""
        found, count = self.vectors([self.task.request(text) for text in texts])
        return found.tolist(), count

    def similar(self, queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        """Cosines of every query with every text, (queries, texts)."""
        one, other = (
            self.vectors([(text_turn("user", text),) for text in texts])[0]
            for texts in (queries, passages)
        )
        return np.asarray(one @ other.T)

    def said(self, turns: Sequence[Turn], **params: Any) -> str:
        """The first numbers, and how many there are."""
        (answer,) = self.answer([turns], **params)
        first = ", ".join(f"{value:.3f}" for value in answer.numbers[:FEW])
        return f"[{first}, ...], {len(answer.numbers)} numbers"

    @property
    def tag(self) -> str:
        """The hub's name."""
        return "sentence-similarity"

    def sampler(self, run: Run, stage: str) -> None:
        """None: a vector shows nothing."""

    def measure(
        self, run: Run, stage: str, fitted: Fitted, result: dict[str, Any], say: Say
    ) -> None:
        """How well texts of the test part are found, beside baselines that read words."""
        self.found(run, f"{stage}: test", stored(run, stage, "test", fitted), result, say)

    def found(
        self, run: Run, part: str, examples: Sequence[Example], result: dict[str, Any], say: Say
    ) -> None:
        """How well the answers of examples are found among all of theirs, with a few to look at.

        Args:
            run: says whether baselines are wanted.
            part: the examples are, in words.
            examples: a text and the one that belongs to it.
            result: gets ``measures`` and ``examples``.
            say: told of the progress.
        """
        said: dict[str, Policy] = {"ours": self}
        if run.recipe.evaluate.baselines:
            said |= self.task.baselines(())
        say(f"evaluate: {part}: {len(examples):,} queries, by {', '.join(said)}")
        result["measures"] += together(self.task, examples, said)
        few = examples[:: max(1, len(examples) // SHOWN)][:SHOWN]
        passages = list(dict.fromkeys(example.answer.text for example in examples))
        best = self.similar([example.given[0].text for example in few], passages).argmax(1)
        result["examples"] += [
            {
                "question": example.given[0].text,
                "reference": example.answer.text,
                "answer": passages[number],
                "baselines": {},
                "score": None,
            }
            for example, number in zip(few, best.tolist(), strict=True)
        ]
