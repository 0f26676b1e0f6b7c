"""What changes the logits of one request before a token is taken: penalties, biases, a grammar.

With c(t) the times that the answer has token t, f and p its frequency and presence penalty, r its
repetition penalty and b(t) its bias, a logit z(t) becomes

    z'(t) = (z(t) / r if z(t) > 0 else z(t) r)  where prompt or answer have t
    z''(t) = z'(t) - f c(t) - p [c(t) > 0] + b(t),  -inf where the grammar forbids t,
                                                     or t would end the answer too early.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from modelwright.serving.constraint import Constraint
from modelwright.serving.sampling import SamplingParams


class Steering:
    """The history of one request, as far as its next logits depend on it.

    ``special`` tokens are those by which the model ends an answer.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        constraint: Constraint | None = None,
        special: Collection[int] = (),
    ) -> None:
        self._params, self.constraint = params, constraint
        self._special = sorted(special)
        self._ends = sorted({*special, *params.stop_token_ids})
        self._counts: Counter[int] = Counter()
        self._seen = dict.fromkeys(prompt) if params.repetition_penalty != 1 else {}

    def took(self, token: int) -> None:
        """Count a token of the answer."""
        self._counts[token] += 1
        if self._params.repetition_penalty != 1:
            self._seen[token] = None
        if self.constraint is not None:
            self.constraint.took(token)

    def steered(self, logits: Tensor) -> Tensor:
        """The changed logits of a row (vocabulary,).

        Raises:
            ConstraintError: following the grammar costs too much.
        """
        p = self._params
        z = logits.clone()
        if self._seen:
            # Learned prompts are tokens beyond the vocabulary.
            seen = self._indices(z, [token for token in self._seen if token < len(z)])
            at = z[seen]
            z[seen] = torch.where(at > 0, at / p.repetition_penalty, at * p.repetition_penalty)
        if self._counts and (p.frequency_penalty or p.presence_penalty):
            times = z.new_tensor(list(self._counts.values()))
            z[self._indices(z, self._counts)] -= p.frequency_penalty * times + p.presence_penalty
        if p.logit_bias:
            at = self._indices(z, [token for token, _ in p.logit_bias])
            z[at] += z.new_tensor([bias for _, bias in p.logit_bias])
        early = self._counts.total() < p.min_tokens
        if early or p.ignore_eos:
            ends = self._ends if early else self._special
            z[self._indices(z, [token for token in ends if token < len(z)])] = -torch.inf
        if self.constraint is not None:
            z.masked_fill_(~self.constraint.allowed().to(z.device), -torch.inf)
        return z

    @staticmethod
    def _indices(z: Tensor, tokens: Sequence[int] | Counter[int]) -> Tensor:
        return torch.tensor(list(tokens), dtype=torch.long, device=z.device)
