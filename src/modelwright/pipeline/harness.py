"""Published benchmarks of language models by lm-evaluation-harness, our engine as its model.

Its tasks, prompts and scores are its own; likelihoods and continuations come from the engine that
serves. What a task fetches, it fetches itself: data sets of its own need its library's network.

    log p(continuation | context) = Σ log p(token | tokens before), over the continuation's tokens
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.errors import MachineError, ModelwrightError, did_you_mean
from modelwright.pipeline.fitted import Fitted
from modelwright.serving.engine import Engine, Request
from modelwright.serving.row import Completion
from modelwright.serving.sampling import SamplingParams

EXTRA = "pip install 'modelwright[harness]'"
RESAMPLES = 1000  # of measures whose standard error has no formula
MOST_WRITTEN = 256  # tokens of a continuation whose task says nothing
AT_ONCE = 16  # texts in a batch
TOLD, SECONDS = 8 * AT_ONCE, 5.0  # requests, and seconds, between two lines of progress


@dataclass(frozen=True)
class Scored:
    """One measure of one task: ``task``, ``measure``, ``value`` and its standard error, if any."""

    task: str
    measure: str
    value: float
    error: float | None
    better: str
    examples: int


class Scorer:
    """Likelihoods and continuations of token lists, as the engine of a decoder gives them.

    Args:
        fitted: the model.
        say: takes lines of progress.

    Raises:
        ModelwrightError: the model does not write token by token.
    """

    def __init__(self, fitted: Fitted, say: Callable[[str], None] = lambda _: None) -> None:
        self.say = say
        if not hasattr(fitted.model, "new_cache") or not hasattr(fitted.codec, "tokens"):
            raise ModelwrightError(
                f"{fitted.path}: benchmarks of language models are for models that write; evaluate"
                " this one on rows: `modelwright evaluate RUN --on FILE`"
            )
        self.codec: Any = fitted.codec
        self.engine = Engine(fitted.model, fitted.codec, max_batch=AT_ONCE)

    @property
    def longest(self) -> int:
        """Tokens that are scored at once: the context, but for one that the engine may write."""
        return self.engine.context - 1

    def scores(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Likelihood]:
        """Of every pair (context, continuation), neither of them empty.

        What is longer than the context is cut at its beginning.
        """
        params = SamplingParams(max_tokens=0, echo=True, logprobs=1)
        whole = [([*context, *after])[-self.longest :] for context, after in pairs]
        done = self._answered([Request(tokens, params) for tokens in whole], "likelihoods")
        found = []
        for (_, after), one in zip(pairs, done, strict=True):
            told = [s for s in one.prompt_scores[-len(after) :] if s.logprob is not None]
            first = all(not s.top or (s.logprob or 0.0) >= (s.top[0][1] or 0.0) for s in told)
            found.append(Likelihood(sum(s.logprob or 0.0 for s in told), first))
        return found

    def written(self, asked: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """The continuation of every text by its settings, as the harness says them."""
        requests = []
        for text, settings in asked:
            until = settings.get("until") or []
            stop = tuple(one for one in ([until] if isinstance(until, str) else until) if one)
            most = int(settings.get("max_gen_toks") or MOST_WRITTEN)
            warm = float(settings.get("temperature") or 0.0) if settings.get("do_sample") else 0.0
            top_p = float(settings.get("top_p") or 1.0)
            params = SamplingParams(most, warm, top_p, stop=stop, seed=0)
            room = max(1, self.engine.context - most)
            tokens = (self.codec.tokens(text) or [self.codec.end])[-room:]
            requests.append(Request(tokens, params))
        return [one.text for one in self._answered(requests, "continuations")]

    def _answered(self, requests: Sequence[Request], what: str) -> list[Completion]:
        """All of them, some at a time, with the rate and what is left said every few seconds."""
        done: list[Completion] = []
        began = said = time.monotonic()
        for first in range(0, len(requests), TOLD):
            done += self.engine.generate(requests[first : first + TOLD])
            now = time.monotonic()
            if now - said >= SECONDS and len(done) < len(requests):
                rate, said = len(done) / (now - began), now
                left = (len(requests) - len(done)) / rate
                counts = f"{len(done):,} of {len(requests):,} {what}"
                self.say(f"benchmark: {counts}  {rate:,.1f}/s  {left:,.0f} s left")
        return done


@dataclass(frozen=True)
class Likelihood:
    """log p of a continuation in nats, and whether each of its tokens is the likeliest."""

    value: float
    greedy: bool


def benchmark(
    fitted: Fitted,
    tasks: Sequence[str],
    *,
    shots: int | None = None,
    limit: int | None = None,
    include: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[Scored]:
    """What tasks of the harness measure of a model.

    Args:
        fitted: a model that writes.
        tasks: names of the harness's tasks or groups, or of YAML files in ``include``.
        shots: solved examples before every question; left out: as a task says.
        limit: questions of each task at most, the first ones.
        include: a folder of YAML files with tasks of one's own.
        say: takes lines of progress.

    Raises:
        MachineError: lm-eval is not installed, or a task's data cannot be had.
        ModelwrightError: a task is unknown, or the model does not write.
    """
    try:
        import lm_eval  # noqa: PLC0415 - an extra
        from lm_eval.tasks import TaskManager  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(f"lm-evaluation-harness is not installed; {EXTRA}") from error
    terminal = sys.stderr

    def aloud(line: str) -> None:
        with contextlib.redirect_stderr(terminal):
            say(line)

    model = _model_class()(Scorer(fitted, aloud))
    with _quiet():
        manager = TaskManager(include_path=None if include is None else str(include))
    if unknown := [task for task in tasks if task not in manager.all_tasks]:
        hint = did_you_mean(unknown[0], manager.all_tasks)
        raise ModelwrightError(
            f"{unknown[0]}: the harness has no such task{hint}; --include has your own, as YAML"
        )
    say(f"benchmark: {', '.join(tasks)}")
    try:
        with _quiet():
            found: Any = lm_eval.simple_evaluate(
                model=model,
                tasks=list(tasks),
                num_fewshot=shots,
                limit=limit,
                task_manager=manager,
                bootstrap_iters=RESAMPLES,
                log_samples=False,
                confirm_run_unsafe_code=False,
            )
    except (OSError, ConnectionError, ValueError) as error:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise MachineError(
            f"{', '.join(tasks)}: cannot be measured ({why}); see that the task's data can be had"
        ) from error
    return list(_scored(found))


def _scored(found: Mapping[str, Any]) -> Iterator[Scored]:
    counts = found.get("n-samples", {})
    better = found.get("higher_is_better", {})
    for task, measures in found["results"].items():
        for name, value in measures.items():
            measure, _, _ = name.partition(",")
            if not isinstance(value, int | float) or measure.endswith("_stderr"):
                continue
            if measure in ("sample_len", "alias"):
                continue
            error = measures.get(name.replace(measure, f"{measure}_stderr", 1))
            up = better.get(task, {}).get(measure, True)
            yield Scored(
                task,
                measure,
                float(value),
                float(error) if isinstance(error, int | float) else None,
                "lower" if up is False else "higher",
                int(counts.get(task, {}).get("effective", 0)),
            )


def _model_class() -> type[Any]:
    """Our model as one of the harness's own; made here, since its base is an extra's."""
    from lm_eval import utils  # noqa: PLC0415 - an extra
    from lm_eval.api.model import TemplateLM  # noqa: PLC0415

    class EngineModel(TemplateLM):  # type: ignore[misc]  # of a library without types
        """See ``Scorer``; the harness cuts texts into contexts and continuations."""

        def __init__(self, scorer: Scorer) -> None:
            super().__init__()
            self.scorer = scorer

        @property
        def eot_token_id(self) -> int:
            return int(self.scorer.codec.end)

        def tok_encode(
            self,
            string: str,
            add_special_tokens: bool | None = None,  # noqa: ARG002
            **_: Any,
        ) -> list[int]:
            return list(self.scorer.codec.tokens(string))

        def _loglikelihood_tokens(
            self,
            requests: Sequence[Any],
            disable_tqdm: bool = False,  # noqa: ARG002
            **_: Any,
        ) -> list[tuple[float, bool]]:
            found = self.scorer.scores([(context, after) for _, context, after in requests])
            return [(one.value, one.greedy) for one in found]

        def loglikelihood_rolling(
            self,
            requests: Sequence[Any],
            disable_tqdm: bool = False,  # noqa: ARG002
        ) -> list[float]:
            totals = []
            for request in requests:
                windows = utils.get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.scorer.longest - 1,
                    context_len=1,
                )
                pairs = [utils.make_disjoint_window(window) for window in windows]
                totals.append(sum(one.value for one in self.scorer.scores(pairs)))
            return totals

        def generate_until(
            self,
            requests: Sequence[Any],
            disable_tqdm: bool = False,  # noqa: ARG002
        ) -> list[str]:
            return self.scorer.written(request.args for request in requests)

    return EngineModel


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's own bars and notes; ours says what there is to say."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
