"""Judge an answer by a number: what people would rather have, learned from their choices."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.data.preference_rows import judged
from modelwright.tasks.preferences import Preferences
from modelwright.types import Turn


class RewardModel(Preferences):
    """The rows of ``preferences``; what is learned is a reward, higher for the better answer.

    Args:
        bad: as of ``preferences``.
    """

    objective = "bradley_terry"

    def question(self, text: str) -> Sequence[Turn]:
        """A conversation to be judged: a transcript, or a prompt, a blank line and the answer."""
        return judged(text)
