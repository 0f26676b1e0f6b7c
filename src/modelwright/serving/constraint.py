"""Answers that must match a JSON schema or a regular expression.

The library llguidance says at every step which tokens may follow; the others get the logit -inf.
It compiles a grammar lazily, so a hostile one costs little before it is refused, and it counts
what a step may cost (``LIMITS``). Its tokens are those of the model's own codec.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from modelwright.errors import MachineError, ModelwrightError

MOST_TEXT = 64 << 10  # characters of a grammar as it is given
# Of llguidance, far below its defaults: what one request may cost the others. A grammar that goes
# beyond any of them is an error of this request alone.
LIMITS: dict[str, int] = {
    "max_items_in_row": 1000,
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 20_000,
    "max_lexer_states": 10_000,
    "max_grammar_size": 100_000,
}
# What may stand between two parts of JSON: indented or not, but no answer is blanks without end.
BETWEEN = r"(\n {0,8}| )?"

# What llguidance says of a grammar, and what a client is told: its own words name options and
# parts of libraries that a client knows nothing of.
_WRONG = {
    r"Unimplemented keys: \[(.*?)\]": "the schema has keys that are not kept: {}; leave them out",
    r"Invalid type: ([\w-]+)": "the schema has a type that there is not: {}",
    r"Unknown format: ([\w-]+)": "the schema has a format that is not kept: {}; leave it out",
    r"Unsatisfiable schema": "nothing can match the schema; correct it",
    r"Resource '.*' is not present": "nothing is fetched; write what '$ref' names into the schema",
    r"Pointer '(.*?)' does not exist": "the schema has no place {!r}; correct its '$ref'",
    r"oneOf constraints": "the schema has 'oneOf', which is not kept; write 'anyOf'",
    r"regex parse error(?s:.*)\nerror: ([a-z][a-z ,<=-]*)": "the expression is wrong: {}",
}
_SHOWN = 200  # characters of what a client wrote


class ConstraintError(ModelwrightError):
    """A schema or an expression that cannot be understood or costs too much.

    ``param`` is the field of a request that it came in.
    """

    def __init__(self, message: str, param: str = "response_format") -> None:
        super().__init__(message)
        self.param = param


class _Vocabulary(Protocol):
    end: int
    special: frozenset[int]

    def spell(self, tokens: Iterable[int]) -> bytes: ...

    def tokens(self, text: str) -> list[int]: ...


class _Tokens:
    """What llguidance reads of a tokenizer."""

    def __init__(self, codec: _Vocabulary, vocabulary: int) -> None:
        self._codec = codec
        self.eos_token_id = codec.end
        self.bos_token_id = None
        self.special_token_ids = sorted(codec.special)
        # A token that spells nothing must not look like an empty step that is always allowed.
        spelled = [codec.spell([i]) for i in range(vocabulary)]
        self.tokens = [text or b"\xff<%d>" % i for i, text in enumerate(spelled)]

    def __call__(self, text: bytes | str) -> list[int]:
        """Tokens of a text."""
        return self._codec.tokens(text if isinstance(text, str) else text.decode())


def _library() -> Any:
    try:
        import llguidance  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            "answers by a schema need llguidance: pip install 'modelwright[serve]'"
        ) from error
    return llguidance


@dataclass(frozen=True)
class Grammar:
    """What an answer must match: ``kind`` says in which language ``text`` tells it.

    An expression is matched as a whole; there is no look-around. ``param`` is the field of a
    request that it came in.

    Raises:
        ConstraintError: it is too long.
    """

    kind: Literal["json_schema", "regex", "lark"]
    text: str
    param: str = "response_format"

    def __post_init__(self) -> None:
        if len(self.text) > MOST_TEXT:
            message = f"it is longer than {MOST_TEXT} characters; send a smaller one"
            raise ConstraintError(message, self.param)


class Constraints:
    """Makes the constraints of requests, with the vocabulary of one codec; built when first used.

    Raises:
        ModelwrightError: the codec's tokens depend on where they stand, so no grammar can be
            followed with them.
    """

    def __init__(self, codec: _Vocabulary, vocabulary: int) -> None:
        if getattr(codec, "spaced", False):
            raise ConstraintError("this model's first token loses a blank; send no grammar")
        library = _library()
        tokens = library.TokenizerWrapper(_Tokens(codec, vocabulary))
        self._tokenizer = library.LLTokenizer(tokens, n_vocab=vocabulary, eos_token=codec.end)
        self._vocabulary = vocabulary
        self._limits = library.LLParserLimits(**LIMITS, verbose_errors=False)
        self._matcher = library.LLMatcher

    def constraint(self, grammar: Grammar) -> Constraint:
        """The constraint of one answer.

        Raises:
            ConstraintError: the grammar is wrong or too large.
        """
        try:
            if grammar.kind == "regex":
                compiled = self._matcher.grammar_from_regex(grammar.text)
            elif grammar.kind == "lark":
                compiled = self._matcher.grammar_from_lark(grammar.text)
            else:
                compiled = self._matcher.grammar_from_json_schema(
                    grammar.text, overrides={"whitespace_pattern": BETWEEN}
                )
        except ValueError as error:
            raise ConstraintError("the schema is no JSON object", grammar.param) from error
        matcher = self._matcher(self._tokenizer, compiled, log_level=0, limits=self._limits)
        return Constraint(matcher, self._vocabulary, grammar.param)


def _wrong(told: str) -> str:
    """What is wrong with a schema or an expression, of which llguidance has ``told`` that."""
    for pattern, said in _WRONG.items():
        if found := re.search(pattern, told):
            return said.format(*(one[:_SHOWN] for one in found.groups()))
    return "it cannot be followed, or costs too much; send a simpler one"


class Constraint:
    """Which tokens may follow in one answer."""

    def __init__(self, matcher: Any, vocabulary: int, param: str = "response_format") -> None:
        self._matcher, self._vocabulary, self._param = matcher, vocabulary, param
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintError(_wrong(str(self._matcher.get_error())), self._param)

    def allowed(self) -> Tensor:
        """A bool for every token (vocabulary,): whether it may come next.

        Raises:
            ConstraintError: it costs too much to say.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        flags = np.unpackbits(bits, bitorder="little")[: self._vocabulary]
        return torch.from_numpy(flags.astype(np.bool_))

    def took(self, token: int) -> None:
        """Go on by a token."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def done(self) -> bool:
        """Whether the answer is whole and nothing can follow."""
        return bool(self._matcher.is_stopped())
