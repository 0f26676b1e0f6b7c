"""Speech as it is heard and seen: samples while a model learns, and how well it is understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from modelwright import runtime
from modelwright.data.codecs.waveforms import frames_of
from modelwright.data.pictures import encode_png
from modelwright.data.shards import open_shard
from modelwright.data.sounds import encode_wav
from modelwright.data.spectrograms import MelSettings
from modelwright.errors import ModelwrightError
from modelwright.files import make_folder, replace_file
from modelwright.pipeline import heard, samples
from modelwright.pipeline.fitted import Fitted, load_fitted, newest_checkpoint
from modelwright.pipeline.predicted import asked, examples_of, stored, together
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run
from modelwright.serving.predictor import Predictor
from modelwright.serving.speech import SpeechMaker, Vocoder, by_model, by_rule
from modelwright.tasks.task import Task
from modelwright.tasks.transcripts import compared, error_rates, normalised
from modelwright.types import Array, Codec, Example, Policy, Sound, Turn, rows_in

QUIET, LOUD = -9.0, -1.0  # nats of a magnitude: black and white of a picture
TALL = 3  # pixels of a band
SHOWN = 2  # sentences of the validation part that are spoken while a model learns
JUDGED = 12  # sentences in the report, to be heard and as they were understood
OURS = "this model"  # as the report calls it


def picture(frames: Array) -> Array:
    """Log-mel frames (T, bands) in nats as grey pixels uint8, the lowest band at the bottom."""
    shares = (np.asarray(frames).T[::-1] - QUIET) / (LOUD - QUIET)
    levels = np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
    return np.repeat(np.repeat(levels, TALL, axis=0), 2, axis=1)


def vocoder_of(task: Task, settings: MelSettings) -> Vocoder:
    """The vocoder that a task names, or Griffin and Lim's algorithm.

    Raises:
        ModelwrightError: there is no trained vocoder, or its frames are others.
    """
    named = cast(Any, task)
    if not named.vocoder:
        return by_rule(settings, named.iterations)
    fitted = _trained(named.vocoder, "vocoder", "leave it out for Griffin-Lim")
    theirs = getattr(fitted.codec, "settings", None)
    if theirs != settings or not hasattr(fitted.codec, "standardised"):
        raise ModelwrightError(
            f"train.options.vocoder: {named.vocoder} reads other frames ({theirs}) than this model"
            f" makes ({settings}); train one with the same codec"
        )
    return by_model(fitted.model, fitted.codec)


def _trained(path: str, option: str, instead: str) -> Fitted:
    try:
        return load_fitted(newest_checkpoint(Run.open(Path(path).expanduser())))
    except ModelwrightError as error:
        raise ModelwrightError(f"train.options.{option}: {error}; or {instead}") from error


def prompts(run: Run, stage: str, codec: Codec, task: Task) -> list[Sequence[Turn]]:
    """What is spoken while a model learns: the recipe's question, and sentences of validation.

    Raises:
        ModelwrightError: the question has a character that the train part has not.
    """
    found: list[Sequence[Turn]] = []
    if run.recipe.ask:
        found.append(task.question(run.recipe.ask))
        try:
            codec.encode(Example(tuple(found[0])))
        except ModelwrightError as error:
            raise ModelwrightError(f"ask: {error}") from error
    folder = run.path / "data" / stage / "validation"
    if folder.exists():
        columns = open_shard(folder)
        some = examples_of(codec, columns, range(min(SHOWN, rows_in(columns))))
        found += [example.given for example in some]
    return found


def sample(
    run: Run, stage: str, step: int, maker: SpeechMaker, given: Sequence[Sequence[Turn]]
) -> None:
    """Speak at a step of a training: samples/STAGE-STEP-N.wav and .png, named by lines."""
    folder = run.path / "samples"
    make_folder(folder)
    records = []
    for i, answer in enumerate(maker.answer(given)):
        name = f"{stage}-{step:08d}-{i + 1}"
        replace_file(folder / f"{name}.wav", content(answer))
        shown = picture(maker.spectrum(given[i]).float().cpu().numpy())
        replace_file(folder / f"{name}.png", encode_png(shown))
        said = "".join(turn.text for turn in given[i])
        records.append(
            {"step": step, "prompt": said, "image": f"{name}.png", "sound": f"{name}.wav"}
        )
    samples.keep(run, stage, records)


def content(answer: Turn) -> bytes:
    """The recording of an answer as a WAV file of 16 bits."""
    return encode_wav(answer.sound.samples, answer.sound.rate)


# Evaluation ---------------------------------------------------------------------------------


class _Copied:
    """A policy that makes known recordings again of their own frames."""

    def __init__(
        self, examples: Sequence[Example], vocoder: Vocoder, settings: MelSettings
    ) -> None:
        self.sounds = [example.answer.sound for example in examples]
        self.vocoder, self.settings = vocoder, settings

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:  # noqa: ARG002 - known
        return [Turn("assistant", (self._copied(sound),)) for sound in self.sounds]

    def _copied(self, sound: Sound) -> Sound:
        frames = torch.from_numpy(frames_of(sound, self.settings))[None]
        with torch.inference_mode():
            made = self.vocoder(frames, torch.tensor([frames.shape[1]]))[0]
        return Sound(made.float().clamp(-1, 1).cpu().numpy(), self.settings.rate)


def judged(
    run: Run, stage: str, fitted: Fitted, result: dict[str, Any], *, maker: SpeechMaker, say: Say
) -> None:
    """Measure the speech of held-out texts beside what could be better, and what is worse.

    That is the recordings themselves through the same vocoder, and the mean spectrum, spoken
    without the flow.
    """
    examples = stored(run, stage, "test", fitted)
    seed = runtime.derived_seed(run.recipe.seed, stage, "spoken") % 2**62
    said: dict[str, Policy] = {"ours": maker.changed(seed=seed)}
    settings = cast(Any, fitted.codec).settings
    if run.recipe.evaluate.baselines:
        said["mean spectrum, no flow"] = maker.changed(steps=0)
        said["recordings through the vocoder"] = _Copied(examples, maker.vocoder, settings)
    say(f"evaluate: {stage}: {len(examples):,} texts of test, by {', '.join(said)}")
    result["measures"] += together(fitted.task, examples, said)
    if recogniser := cast(Any, fitted.task).recogniser:
        listener = _trained(recogniser, "recogniser", "leave it out")
        say(f"evaluate: {stage}: what {recogniser} understands of them")
        _understood(run, examples, said, listener, result)
    else:
        _spoken(run, examples, said["ours"], result)


def _spoken(run: Run, examples: Sequence[Example], ours: Policy, result: dict[str, Any]) -> None:
    """Add some texts with our speech and their recordings, to be heard in the report."""
    few = [examples[i] for i in _shown(examples)]
    answers = ours.answer([example.given for example in few])
    for example, turn in zip(few, answers, strict=True):
        sounds = heard.kept(run, {OURS: turn.sound, "recording": example.answer.sound})
        found = {"question": asked(example), "reference": "", "answer": "", "sounds": sounds}
        result["examples"].append({**found, "baselines": {}, "score": None})
    result["examples_note"] = "texts to be spoken; the report plays them"


def _shown(examples: Sequence[Example]) -> range:
    return range(0, len(examples), max(1, len(examples) // JUDGED))


def _understood(
    run: Run,
    examples: Sequence[Example],
    said: Mapping[str, Policy],
    listener: Fitted,
    result: dict[str, Any],
) -> None:
    """Error rates of a recogniser on what was spoken, and on the recordings of the same texts."""
    policy = Predictor(listener.model, listener.codec, listener.objective)
    meant = [normalised(asked(example)) for example in examples]
    sounds = {
        who: [turn.sound for turn in of.answer([e.given for e in examples])]
        for who, of in said.items()
    }
    sounds["recordings"] = [example.answer.sound for example in examples]
    understood = {
        who: [
            normalised(turn.text)
            for turn in policy.answer([(Turn("user", (sound,)),) for sound in spoken])
        ]
        for who, spoken in sounds.items()
    }
    rates = {who: error_rates(meant, texts) for who, texts in understood.items()}
    learned = len(_learned(listener) & set(meant))
    for number in range(2):  # of words and of characters
        measured = rates["ours"][number]
        result["measures"].append(
            {
                "name": f"{measured.name} of a recogniser",
                "unit": "share",
                "better": "lower",
                "rows": [{"who": who, "value": of[number].value} for who, of in rates.items()],
                "note": f"{len(examples):,} texts, by {listener.path}, of whose train part"
                f" {learned:,} are; of ours: {measured.note}",
            }
        )
    for i in _shown(examples):
        others = {who: texts[i] for who, texts in understood.items() if who != "ours"}
        both = {OURS: sounds["ours"][i], "recording": sounds["recordings"][i]}
        result["examples"].append(
            {
                "question": asked(examples[i]),
                "reference": meant[i],
                "answer": understood["ours"][i],
                "baselines": others,
                "sounds": heard.kept(run, both),
                "compared": compared(meant[i], understood["ours"][i]),
                "score": None,
            }
        )
    result["examples_note"] = "texts to be spoken, and what the recogniser understood"


def _learned(listener: Fitted) -> set[str]:
    """The texts of the train part of a recogniser's run, if it is still there."""
    folder = listener.path.parents[2] / "data" / listener.path.parent.name / "train"
    if not folder.exists():
        return set()
    columns, codec = open_shard(folder), listener.codec
    rows = ({k: np.asarray(c[i]) for k, c in columns.items()} for i in range(rows_in(columns)))
    return {normalised(codec.example(row).answer.text) for row in rows}
