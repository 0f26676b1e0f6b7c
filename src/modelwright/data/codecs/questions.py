"""Questions with or without a passage, and answers in free words: pairs of texts.

The source is "question: ... context: ...", the form in which T5 was taught SQuAD
(arXiv:1910.10683). The question stands first, so that of a passage that is too long the end is
left out, and never the question. All answers that are right are stored beside the tokens, since
one alone is learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from modelwright.data.codecs import text_pairs
from modelwright.data.stored_text import restored, stored
from modelwright.types import Encoded, Example, Shortened, Turn, text_turn

QUESTION, CONTEXT = "question: ", " context: "


class Codec(text_pairs.Codec):
    """As pairs of texts, the source made of a passage and a question."""

    ragged = ("tokens", "source", "accepted")

    @classmethod
    def fit(
        cls,
        examples: Iterable[Example],
        *,
        vocabulary: int = 8192,
        longest: int = 512,
        prefix: str = "",
        tokenizer: str | None = None,
        split: str = "own",
    ) -> Codec:
        """Train one tokenizer on passages, questions and answers, or take that of a file.

        Args:
            examples: each with a question, perhaps a passage before it, and an answer to learn.
            vocabulary: how many tokens there shall be.
            longest: how many tokens are read of question and passage together, and learned of an
                answer, the end included.
            prefix: put before every source.
            tokenizer: the path of a byte-level ``tokenizer.json`` to use instead.
            split: where text is cut into words, as of pairs.
        """
        inner = text_pairs.Codec.fit(
            examples,
            vocabulary=vocabulary,
            longest=longest,
            prefix=prefix,
            tokenizer=tokenizer,
            split=split,
        )
        return cls(
            inner.text, longest=longest, start=inner.start, padding=inner.padding, prefix=prefix
        )

    def encode(self, example: Example) -> Encoded:
        """As of pairs, and ``accepted``, the answers that are right as JSON."""
        pair = super().encode(example)
        both = {**pair, "accepted": stored(*example.accepted)}
        return Shortened.where(isinstance(pair, Shortened), both)

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, as far as its texts were read."""
        pair = super().example(encoded)
        question, _, passage = pair.turns[0].text.removeprefix(QUESTION).partition(CONTEXT)
        # Cut text may spell more tokens than it had, and what is asked of it must fit all the same.
        while passage and len(self.prompt(_turns(question, passage))) > self.longest:
            passage = passage[:-1]
        accepted = tuple(restored(np.asarray(encoded["accepted"])))
        return Example((*_turns(question, passage), *pair.turns[1:]), accepted=accepted)

    def given_text(self, turns: Sequence[Turn]) -> str:
        """The last question, with the passage that stands before it or in its first lines."""
        given = [turn for turn in turns if not turn.learn and turn.role in text_pairs.READ]
        if not (len(given) > 1 and given[-2].role == "document"):
            given = list(asked(super().given_text(turns)))
        passage = given[-2].text if len(given) > 1 else ""
        return f"{QUESTION}{given[-1].text}" + (f"{CONTEXT}{passage}" if passage else "")


def asked(text: str) -> tuple[Turn, ...]:
    """The turns of a typed text: the question is its last line, what stands before it a passage."""
    passage, _, question = text.rstrip().rpartition("\n")
    return _turns(question.strip(), passage.strip())


def _turns(question: str, passage: str) -> tuple[Turn, ...]:
    turns = (text_turn("user", question),)
    return (text_turn("document", passage), *turns) if passage else turns
