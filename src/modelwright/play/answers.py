"""Answers that the model in training writes itself, with rewards: one of ``play/generations.py``.

Questions are taken from the stage's train part in a seeded order, each is answered several times by
the serving engine, and every answer is graded by the task. The ids of the tokens that were drawn
are what is learned: nothing is written down as text and read again. Beside them stands what the
model and its reference gave every token then, computed as in training.

Beside each generation a file of JSON tells its mean reward and a few of its answers: the report's
curve. Answers depend on (seed, generation) and the parameters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from modelwright.data.shards import write_shard
from modelwright.files import make_folder, replace_file
from modelwright.objectives.answers import joined, token_log_probabilities
from modelwright.play.frozen import as_it_began
from modelwright.play.generations import Context
from modelwright.runtime import derived_seed
from modelwright.serving.engine import Completion, Engine, Request
from modelwright.serving.sampling import SamplingParams
from modelwright.tasks.task import Task
from modelwright.types import Array, Codec, Columns, Encoded, Example, Ragged, rows_in, text_turn

REFERENCE = "reference.safetensors"
RAGGED = ("tokens", "learn", "old", "reference")
AT_ONCE = 64  # answers that are written at once, and rows whose log-probabilities are computed
SAMPLES = 4  # answers of a generation that are shown


@dataclass(frozen=True)
class Settings:
    """How a model answers in training.

    Attributes:
        questions: of a generation.
        answers: to each.
        max_tokens: of an answer.
        temperature: at which tokens are drawn.
        steps: of training between two generations.
        window: generations that are learned from together.
    """

    questions: int = 16
    answers: int = 8
    max_tokens: int = 128
    temperature: float = 1.0
    steps: int = 4
    window: int = 1


class Maker:
    """Answers the questions of a generation and writes down what was drawn."""

    def __init__(
        self, model: nn.Module, codec: Codec, objective: Any, settings: Settings, context: Context
    ) -> None:
        self.model, self.codec, self.objective = model, codec, objective
        self.settings, self.context = settings, context
        self.steps, self.window = settings.steps, settings.window
        self.task = cast(Task, context.task)
        self.columns: Columns = context.columns()
        self.reference: nn.Module | None = None

    def make(self, number: int, folder: Path) -> str:
        """Write a generation into a folder, and beside it how its answers were rewarded."""
        make_folder(folder.parent)
        s = self.settings
        reference = self._reference(number)
        examples = [self._example(row) for row in self._questions(number)]
        asked, written = self._answered(examples, number)
        rewards = self._rewards(examples, written)
        rows = [_row(tokens, done) for tokens, done in zip(asked, written, strict=True)]
        old = self._log_probabilities(self.model, rows)
        q = old if reference is None else self._log_probabilities(reference, rows)
        apart = np.array([float((o - r).sum()) for o, r in zip(old, q, strict=True)])
        shape = (s.questions, s.answers)
        advantages = self.objective.advantages(rewards.reshape(shape), apart.reshape(shape))
        for i, row in enumerate(rows):
            row |= {
                "old": old[i],
                "reference": q[i],
                "advantage": np.asarray(advantages.ravel()[i], np.float32),
                "reward": np.asarray(rewards[i], np.float32),
                "temperature": np.asarray(s.temperature, np.float32),
            }
        told = self._told(number, examples, written, rewards, apart)
        beside = self.context.folder / f"generation-{number:04d}.json"
        replace_file(beside, json.dumps(told, ensure_ascii=False, indent=1).encode())
        write_shard(folder, rows, RAGGED)
        return (
            f"{len(rows)} answers, {told['tokens']:.1f} tokens each, mean reward"
            f" {told['reward']:.3f}"
        )

    def _questions(self, number: int) -> list[int]:
        """The rows of the train part that are asked in a generation: one pass after another."""
        total, asked = rows_in(self.columns), self.settings.questions
        found: list[int] = []
        for place in range(number * asked, (number + 1) * asked):
            epoch, at = divmod(place, total)
            rng = np.random.default_rng(derived_seed(self.context.seed, "questions", epoch))
            found.append(int(rng.permutation(total)[at]))
        return found

    def _example(self, row: int) -> Example:
        return self.codec.example({name: np.asarray(c[row]) for name, c in self.columns.items()})

    def _answered(
        self, examples: Sequence[Example], number: int
    ) -> tuple[list[list[int]], list[Completion]]:
        """The prompts and what was written after them, ``answers`` times each."""
        s = self.settings
        engine = Engine(self.model, self.codec, max_batch=AT_ONCE, prefix_bytes=0)
        prompts = [engine.prompt(example.given) for example in examples]
        asked = [prompt for prompt in prompts for _ in range(s.answers)]
        requests = []
        for i, prompt in enumerate(asked):
            seed = derived_seed(self.context.seed, "answer", number, i)
            params = SamplingParams(max_tokens=s.max_tokens, temperature=s.temperature, seed=seed)
            requests.append(Request(prompt, params))
        written: list[Completion] = []
        for first in range(0, len(requests), 4 * AT_ONCE):
            written += engine.generate(requests[first : first + 4 * AT_ONCE])
            self.context.tell("")
        return asked, written

    def _rewards(self, examples: Sequence[Example], written: Sequence[Completion]) -> Array:
        each = self.settings.answers
        found = []
        for i, done in enumerate(written):
            turn = text_turn("assistant", done.text)
            found.append(float(self.task.grade(examples[i // each], turn)))
            self.context.tell("")
        return np.array(found)

    def _log_probabilities(self, model: nn.Module, rows: Sequence[Encoded]) -> list[Array]:
        """What a model gives the drawn tokens of every row, (T,) float32 each."""
        found: list[Array] = []
        device = next(model.parameters()).device
        with torch.inference_mode():
            for first in range(0, len(rows), AT_ONCE):
                part = rows[first : first + AT_ONCE]
                tokens, learn = (Ragged.of([row[n] for row in part]) for n in ("tokens", "learn"))
                inputs, targets = joined(tokens, learn)
                values = token_log_probabilities(
                    model,
                    {k: v.to(device) for k, v in inputs.items()},
                    {k: v.to(device) for k, v in targets.items()},
                    self.settings.temperature,
                )
                ends = np.cumsum([int(row["learn"].sum()) for row in part])[:-1]
                found += np.split(values.cpu().numpy(), ends)
                self.context.tell("")
        return found

    def _reference(self, number: int) -> nn.Module | None:
        """The model as it was before generation 0; None where nothing holds this one to it."""
        if not self.objective.kl or self.reference is not None:
            return self.reference
        path = self.context.folder / REFERENCE
        self.reference = as_it_began(self.model, path, begins=number == 0)
        return self.reference

    def _told(
        self,
        number: int,
        examples: Sequence[Example],
        written: Sequence[Completion],
        rewards: Array,
        apart: Array,
    ) -> dict[str, Any]:
        """What the report tells of a generation: means, and some answers spread over it."""
        each = self.settings.answers
        shown = range(0, len(written), max(1, len(written) // SAMPLES))
        return {
            "generation": number,
            "step": number * self.steps,
            "reward": float(rewards.mean()),
            "deviation": float(rewards.std()),
            "kl": float(apart.mean()),
            "tokens": float(np.mean([len(done.tokens) for done in written])),
            "cut": float(np.mean([done.finish_reason == "length" for done in written])),
            "samples": [
                {
                    "question": examples[i // each].given[-1].text,
                    "answer": written[i].text,
                    "reward": float(rewards[i]),
                }
                for i in list(shown)[:SAMPLES]
            ],
        }


def _row(prompt: Sequence[int], done: Completion) -> dict[str, Array]:
    """A prompt and the tokens that were drawn after it, the one that ended the answer included."""
    drawn = [*done.tokens, *([] if done.ended is None else [done.ended])]
    tokens = np.array([*prompt, *drawn], dtype=np.uint32)
    learn = np.arange(len(tokens)) >= len(prompt)
    return {"tokens": tokens, "learn": learn}


def maker(
    model: nn.Module, codec: Codec, objective: Any, settings: dict[str, Any], context: Context
) -> Maker:
    """Who makes the generations of a training, by the settings of the task."""
    return Maker(model, codec, objective, Settings(**settings), context)
