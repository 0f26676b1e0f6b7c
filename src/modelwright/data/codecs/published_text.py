"""Text by a published tokenizer: its ids exactly, its special tokens, its chat template.

A document is the tokens that the tokenizer puts before a text, the text, and its end token. A
conversation is what the chat template renders; of an assistant's turn to be learned that is what
follows the generation prompt, up to its end token. Without a template it is plain lines,
``User: ...`` and ``Assistant: ...``, ended by the end token; no token is added to the vocabulary.
"""

from __future__ import annotations

import functools
import json
import re
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from modelwright.data.chat_template import ChatTemplate
from modelwright.data.codecs import text as own
from modelwright.data.tokenizing.alphabet import byte_characters, encodable
from modelwright.data.tokenizing.encoder import TextEncoder, highest, parse_tokenizer
from modelwright.errors import ModelwrightError
from modelwright.types import Columns, Encoded, Example, Turn, text_turn

FACTS = "published.json"
ROLES = ("system", "user", "assistant")
_PRIVATE = 0xF0000  # the first of the characters that stand for special tokens typed in a text
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"  # stands for a space in sentencepiece's pieces


class Codec:
    """A published tokenizer.

    ``vocabulary`` is the model's, which may have more rows than the tokenizer has ids.
    """

    ragged = ("tokens", "learn", "rejected", "rejected_learn", "turns")

    def __init__(self, content: bytes, facts: Mapping[str, Any]) -> None:
        """A tokenizer.

        Args:
            content: ``tokenizer.json`` as it was published.
            facts: ``vocabulary`` of the model, ``ends`` (ids, the first ends a document),
                ``template`` or None, ``tokens`` (names such as eos_token and what they are), and
                ``settings``, the JSON files that were published beside it.

        Raises:
            ModelwrightError: the model has fewer rows than the tokenizer has ids, or nothing ends
                a document.
        """
        self.content, self.facts = content, dict(facts)
        self.encoder = TextEncoder(parse_tokenizer(content, "tokenizer.json"))
        self.tokenizer = self.encoder.tokenizer
        self._control = parse_tokenizer(content, "tokenizer.json")  # knows special tokens as such
        self._control.no_padding()
        self._control.no_truncation()
        self.vocabulary = int(facts["vocabulary"])
        if highest(self.tokenizer) >= self.vocabulary:
            raise ModelwrightError(
                f"tokenizer: has ids up to {highest(self.tokenizer)}, the model only "
                f"{self.vocabulary} rows; take the tokenizer that was published with the model"
            )
        ends = [int(i) for i in facts["ends"]]
        if not ends:
            raise ModelwrightError(
                "tokenizer: no eos_token and no sep_token, so nothing ends a text; name one in "
                "tokenizer_config.json"
            )
        self.end = ends[0]
        added = self.tokenizer.get_added_tokens_decoder()
        self._typed = sorted((t.content for t in added.values() if t.special), key=len)[::-1]
        self.special = frozenset({*ends, *(i for i, t in added.items() if t.special)})
        self.before, self.after = _frame(self._control)
        self.ends, self.names = ends, dict(facts["tokens"])
        self.template: str | None = facts.get("template")
        self._bytes, self._spelling = _spellings(self.tokenizer, self.vocabulary, self.special)
        self.token_bytes = np.array([len(s) for s in self._spelling], dtype=np.int64)
        self._template: ChatTemplate | None = None
        if isinstance(found := facts.get("template"), str):
            self._template = ChatTemplate(found, facts["tokens"], where="chat_template")
            weakref.finalize(self, self._template.close)

    def settings(self, context: int | None) -> dict[str, dict[str, Any]]:  # noqa: ARG002
        """The JSON files that were published beside ``tokenizer.json``: name -> content."""
        found: dict[str, dict[str, Any]] = self.facts["settings"]
        return found

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text; special tokens that are typed in it are text."""
        ids: list[int] = self.encoder.encode(text).tolist()
        return ids

    def source_tokens(self, text: str) -> list[int]:
        """Token ids of a text that is read and answered: the same, but for Marian's."""
        return self.tokens(text)

    @property
    def originals(self) -> dict[str, bytes]:
        """The tokenizer's own files, as they were published."""
        return {"tokenizer.json": self.content}

    def spell(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens spell; special tokens spell nothing."""
        return b"".join(self._spelling[t] for t in tokens)

    def text(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without special ones."""
        if self._bytes:
            return self.spell(tokens).decode("utf-8", errors="replace")
        kept = [int(t) for t in tokens if t not in self.special and self.token_bytes[t]]
        decoded: str = self.tokenizer.decode(kept)
        return decoded

    @functools.cached_property
    def between(self) -> list[int]:
        """The ids that the tokenizer puts between two texts that are read together."""
        framed = self._control.encode("a", "b", add_special_tokens=True)
        marks = framed.special_tokens_mask
        true = [at for at, mark in enumerate(marks) if not mark]
        return [framed.ids[at] for at in range(true[0], true[-1]) if marks[at]] if true else []

    def framed(self, tokens: Sequence[int], longest: int) -> list[int]:
        """A text as an encoder reads it, cut to ``longest``: [CLS] ... [SEP], or ended."""
        after = self.after or [self.end]
        body = tokens[: max(0, longest - len(self.before) - len(after))]
        return [*self.before, *body, *after]

    # Conversations ---------------------------------------------------------------------------

    def layout(self, turns: Sequence[Turn]) -> tuple[list[int], list[bool]]:
        """Tokens of some turns and which of them are learned."""
        if [t.role for t in turns] == ["document"]:
            tokens = [*self.before, *self.tokens(turns[0].text), self.end]
            return tokens, [turns[0].learn] * len(tokens)
        self._check(turns)
        if self._template is None:
            return self._plain(turns)
        return self._rendered(self._template, turns)

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Tokens after which the assistant's answer (or a document's continuation) follows."""
        if turns and turns[-1].role == "document":
            return self.layout(turns)[0][:-1]
        self._check(turns)
        if self._template is None:
            tokens = self._plain(turns)[0] if turns else list(self.before)
            return [*tokens, *self.tokens("Assistant:")]
        messages, stand = self._messages(turns)
        text = self._template.render(messages, add_generation_prompt=True)
        return self._encoded(text, stand)[0]

    def _check(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            if turn.role not in ROLES:
                raise ModelwrightError(
                    f"turn: role {turn.role!r} is not document alone, {', '.join(ROLES)}"
                )

    def _plain(self, turns: Sequence[Turn]) -> tuple[list[int], list[bool]]:
        """Lines that any language model has seen; each part is encoded by itself."""
        tokens, learn = list(self.before), [False] * len(self.before)
        for turn in turns:
            head = self.tokens(f"{turn.role.capitalize()}:")
            body = self.tokens(f" {turn.text}")
            body += [self.end] if turn.role == "assistant" else self.tokens("\n")
            tokens += head + body
            learn += [False] * len(head) + [turn.learn] * len(body)
        return tokens, learn

    def _rendered(
        self, template: ChatTemplate, turns: Sequence[Turn]
    ) -> tuple[list[int], list[bool]]:
        messages, stand = self._messages(turns)
        whole = template.render(messages)
        spans = []
        for i, turn in enumerate(turns):
            if not turn.learn:
                continue
            asked = template.render(messages[:i], add_generation_prompt=True)
            said = whole if i == len(turns) - 1 else template.render(messages[: i + 1])
            if not (whole.startswith(said) and said.startswith(asked)):
                raise ModelwrightError(
                    f"chat_template: turn {i + 1} is not rendered after its generation prompt, so "
                    "what is to be learned is unknown; learn the last turn only, or replace it"
                )
            spans.append((len(asked), len(said)))
        tokens, places = self._encoded(whole, stand)
        learn = [any(a <= at < b for a, b in spans) for at in places]
        for a, b in spans:  # what the template writes after the end token is not the answer's
            ended = [k for k, at in enumerate(places) if a <= at < b and tokens[k] in self.special]
            for k in range(ended[-1] + 1, len(tokens)) if ended else ():
                learn[k] = learn[k] and not a <= places[k] < b
            if not ended and b < len(whole):
                raise ModelwrightError(
                    "chat_template: ends a turn of the assistant with no special token, so it could"
                    " not be learned to stop; learn the last turn only, or replace it"
                )
        if spans and not any(tokens[k] in self.special for k, x in enumerate(learn) if x):
            tokens, learn = [*tokens, self.end], [*learn, True]  # an end is always learned
        return tokens, learn

    def _messages(self, turns: Sequence[Turn]) -> tuple[list[dict[str, str]], dict[str, str]]:
        """Messages for the template; special tokens typed in them stand as private characters."""
        typed = [s for s in self._typed if any(s in t.text for t in turns)]
        stand = {chr(_PRIVATE + i): s for i, s in enumerate(typed)}
        messages = []
        for turn in turns:
            content = encodable(turn.text)
            for character, special in stand.items():
                content = content.replace(special, character)
            messages.append({"role": turn.role, "content": content})
        return messages, stand

    def _encoded(self, text: str, stand: Mapping[str, str]) -> tuple[list[int], list[int]]:
        """Ids of a rendered text, and the character at which each begins."""
        pieces = re.split(f"([{''.join(stand)}])", text) if stand else [text]
        ids: list[int] = []
        places: list[int] = []
        at = 0
        for piece in pieces:
            if piece in stand:
                found = self.tokens(stand[piece])
                ids += found
                places += [at] * len(found)
            elif piece:
                encoding = self._control.encode(piece, add_special_tokens=False)
                ids += encoding.ids
                places += [at + begin for begin, _ in encoding.offsets]
            at += len(piece)
        return ids, places

    # Examples --------------------------------------------------------------------------------

    def encode(self, example: Example) -> Encoded:
        """``tokens`` (T,) and ``learn`` (T,), bool; of a conversation also its ``turns`` (JSON).

        Of an example that compares two answers also ``rejected`` (R,) and ``rejected_learn`` (R,),
        and the other answer stands as the last of its ``turns``.
        """
        found = own.laid_out(self, example)
        if [t.role for t in example.turns] != ["document"]:
            every = [*example.turns, *([example.rejected] if example.rejected else [])]
            written = json.dumps([[t.role, t.text, t.learn] for t in every])
            found["turns"] = np.frombuffer(written.encode(), dtype=np.uint8)
        return found

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given."""
        if "turns" in encoded:
            written = json.loads(bytes(np.asarray(encoded["turns"])))
            turns = tuple(text_turn(r, text, learn=learn) for r, text, learn in written)
            return Example(turns[:-1], turns[-1]) if "rejected" in encoded else Example(turns)
        tokens = np.asarray(encoded["tokens"]).tolist()
        if tokens[: len(self.before)] == self.before:
            tokens = tokens[len(self.before) :]
        learned = bool(np.asarray(encoded["learn"]).any())
        return Example((text_turn("document", self.text(tokens), learn=learned),))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """Rows padded on the right with the end token, which is not learned there: (B, T) each."""
        return own.padded(columns, self.end)

    def save(self) -> dict[str, bytes]:
        """``tokenizer.json`` as it was published, and ``published.json``."""
        facts = json.dumps(self.facts, ensure_ascii=False, sort_keys=True)
        return {"tokenizer.json": self.content, FACTS: facts.encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        return cls(files["tokenizer.json"], json.loads(files[FACTS]))


def _frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text."""
    framed = tokenizer.encode("a", add_special_tokens=True)
    marks = framed.special_tokens_mask
    if all(marks):
        return list(framed.ids), []
    first = marks.index(0)
    last = len(marks) - marks[::-1].index(0)
    return list(framed.ids[:first]), list(framed.ids[last:])


def _spellings(
    tokenizer: Tokenizer, vocabulary: int, special: frozenset[int]
) -> tuple[bool, list[bytes]]:
    """Whether it is byte-level, and what every id spells by itself."""
    document = json.loads(tokenizer.to_str())
    kinds = json.dumps([document.get("decoder"), document.get("pre_tokenizer")])
    byte_level = '"ByteLevel"' in kinds
    words = document["model"].get("type") == "WordPiece"
    byte_of = {char: byte for byte, char in byte_characters().items()}
    added = tokenizer.get_added_tokens_decoder()
    spelling = []
    for i in range(vocabulary):
        token = "" if i in special else tokenizer.id_to_token(i) or ""
        if i in added:
            spelling.append(token.encode())
        elif byte_level:
            spelling.append(bytes(byte_of[c] for c in token if c in byte_of))
        elif match := _BYTE.fullmatch(token):
            spelling.append(bytes([int(match[1], 16)]))
        elif words:
            spelled = token[2:] if token.startswith("##") else f" {token}" * bool(token)
            spelling.append(spelled.encode())
        else:
            spelling.append(token.replace(_SPACE, " ").encode())
    return byte_level, spelling
