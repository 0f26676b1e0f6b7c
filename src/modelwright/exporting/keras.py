"""Keras 3 and TensorFlow: ``model.keras`` and ``saved_model/``, from raw numbers or tokens on.

Every layer is one of Keras' own, so ``keras.saving.load_model`` needs no code of ours and no
permission to run any. What the codec does to numbers is a layer too; texts are made tokens by
``tokenizer.json`` beside it. ``keras.json`` names inputs, labels and what the outputs are.

The proof: a process with TensorFlow loads both files anew, and stored samples go through them
raw, one by one and all together, padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from modelwright.errors import ModelwrightError
from modelwright.exporting.keras_layers import tensorflow
from modelwright.exporting.keras_layers.families import family
from modelwright.exporting.keras_layers.inputs import (
    SCALED,
    facts_json,
    inputs_of,
    reads_of,
    tokenizer_of,
)
from modelwright.exporting.keras_layers.net import Net, keras_name, transposed_planes
from modelwright.exporting.subject import Options, Subject, same_tokens
from modelwright.files import write_file
from modelwright.hub.replay import Replayed
from modelwright.models import keras as room
from modelwright.types import Array, stack, take

MODEL, SAVED, FACTS, OWN = "model.keras", "saved_model", "keras.json", "own.keras"
LIBRARY = "keras"
TOLERANCE = 1e-4  # of the largest answer: other libraries sum in another order


_USAGE = """\
`model.keras` for Keras 3 on any of its backends, `saved_model/` for TensorFlow; what goes in and
what comes out stands in `keras.json`. {about}

```python
import keras  # pip install keras tensorflow
import numpy as np
{imports}
model = keras.saving.load_model("model.keras")
{prepare}
print(model({inputs}))
```
"""


def write(folder: Path, subject: Subject, options: Options) -> None:
    """Write the model for Keras and for TensorFlow, and what people need to know of it.

    Raises:
        ModelwrightError: the family has no counterpart, or an option is not this format's.
        MachineError: a library is not installed.
    """
    if options.quantization:
        raise ModelwrightError("--quantize: not for --to keras; leave it out")
    if options.dtype not in (None, torch.float32):
        raise ModelwrightError("--dtype: --to keras writes float32; leave it out")
    tensorflow.needed()
    way = family(subject.config.family)
    keras = room.library()
    with room.quiet():
        found = inputs_of(keras, subject.codec)
        net = Net(keras, subject.model)
        logits = way.build(net, subject.model, found.given)
    if net.left:
        raise ModelwrightError(
            f"--to keras: no layer holds {', '.join(net.left[:3])} of the {subject.config.family}; "
            "this model is not supported"
        )
    with room.quiet():
        model = keras.Model(found.of_model, logits, name=subject.config.family)
        model.save(folder / MODEL)
        if isinstance(subject.config, room.Config):
            room.own_model(subject.config, subject.model).save(folder / OWN)
    tokenizer = tokenizer_of(subject.codec)
    if tokenizer is not None:
        write_file(folder / "tokenizer.json", [tokenizer])
    codec: Any = subject.codec
    facts = {
        "inputs": found.facts,
        "output": _meaning(subject, int(logits.shape[-1])),
        "labels": list(getattr(subject.codec, "labels", ())),
        **(codec.front().facts if hasattr(codec, "front") else {}),
    }
    write_file(folder / FACTS, [facts_json(facts)])
    tensorflow.convert(folder / MODEL, folder / SAVED)


def check(folder: Path, subject: Subject, options: Options) -> Replayed:  # noqa: ARG001
    """Send the stored samples through both files, in a process with TensorFlow.

    Raises:
        ModelwrightError: tokens or answers differ; names the sample, and the layer.
    """
    raw, meant = _samples(folder, subject)
    names = [subject.name(i) for i in range(len(subject.examples))]
    if len(names) > 1:
        names.append(f"all samples of {subject.part} in one padded batch")
    answers = tensorflow.replay(folder / MODEL, folder / SAVED, raw)
    largest = 0.0
    for number, name in enumerate(names):
        for kind, file in (("keras", MODEL), ("saved", SAVED)):
            difference = _difference(meant[number], answers[f"{number}.{kind}"])
            if not difference <= TOLERANCE:
                where = _layer(folder, subject, raw, number) if number < len(raw) else ""
                raise ModelwrightError(
                    f"export: {file} answers differently: {name}, {where or 'output'}: differs by "
                    f"{difference:.2g} of the largest value, {TOLERANCE:.0e} is allowed; nothing "
                    "was exported"
                )
            largest = max(largest, difference)
    return Replayed(len(subject.examples), 2 * len(names), largest, TOLERANCE)


def usage(subject: Subject) -> str:
    """How to run it without this package, for the card."""
    return _USAGE.format(**_given(subject))


# The samples -------------------------------------------------------------------------------------


def _samples(folder: Path, subject: Subject) -> tuple[list[dict[str, Array]], list[Array]]:
    """The raw inputs of every sample, and of all together; and what the trained model answers."""
    codec = subject.codec
    encoded = [codec.encode(example) for example in subject.examples]
    raw = [_raw(folder, subject, number, one) for number, one in enumerate(encoded)]
    columns = stack(encoded, codec.ragged)
    rows = [np.array([i]) for i in range(len(raw))]
    if len(raw) > 1:
        rows.append(np.arange(len(raw)))
        raw.append(_joined(raw))
    generator = torch.Generator().manual_seed(0)
    meant = []
    for some in rows:
        batch = subject.objective.collate(take(columns, some), generator)
        meant.append(_answered(subject, batch.inputs))
    return raw, meant


def _raw(
    folder: Path, subject: Subject, number: int, encoded: Mapping[str, Array]
) -> dict[str, Array]:
    """The inputs of one sample as their users have them."""
    codec: Any = subject.codec
    if hasattr(codec, "front"):
        raw = codec.front().raw(subject.examples[number])
        return {k: v.astype(np.int32) if k == "lengths" else v for k, v in raw.items()}
    read = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
    text = subject.examples[number].given[-1].text
    ids = np.array(read.encode(text).ids, dtype=np.int64)
    same_tokens(ids.tolist(), encoded["tokens"].tolist(), subject.example_name(number))
    return {"tokens": ids[None].astype(np.int32), "lengths": np.array([len(ids)], np.int32)}


def _joined(raw: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The samples as one batch; what is padded is no zero, so that it would be seen."""
    joined = {}
    for name, first in raw[0].items():
        arrays = [sample[name] for sample in raw]
        if first.ndim > 1:
            longest = max(a.shape[1] for a in arrays)
            around = [((0, 0), (0, longest - a.shape[1]), *[(0, 0)] * (a.ndim - 2)) for a in arrays]
            arrays = [
                np.pad(a, pad, constant_values=1) for a, pad in zip(arrays, around, strict=True)
            ]
        joined[name] = np.concatenate(arrays)
    return joined


def _answered(subject: Subject, inputs: Mapping[str, Any]) -> Array:
    """What the exported model is to answer."""
    with torch.inference_mode():
        logits = subject.model.eval()(**inputs).float()
    if isinstance(subject.config, room.Config):
        logits = room.activated(subject.config, logits)
    found: Array = logits.numpy()
    return found


def _given(subject: Subject) -> dict[str, str]:
    """What the card says of the inputs."""
    codec: Any = subject.codec
    reads = reads_of(codec)
    if reads == ["tokens"]:
        return {
            "about": "Texts become ids by `tokenizer.json`, ended and cut; nothing else is added.",
            "imports": "from tokenizers import Tokenizer",
            "prepare": 'ids = Tokenizer.from_file("tokenizer.json").encode("some text").ids',
            "inputs": '{"tokens": np.array([ids]), "lengths": np.array([len(ids)])}',
        }
    if reads == ["frames", "lengths"]:
        return {
            "about": "Raw frames go in; the model scales them itself, and sees `lengths` of them.",
            "imports": "",
            "prepare": f"frames = np.zeros((1, 5, {codec.features}), np.float32)  # yours",
            "inputs": '{"frames": frames, "lengths": np.array([5])}',
        }
    kind = str(codec.front().reads[0].dtype).removeprefix("torch.")
    about = "Raw numbers go in, as in the data; the model scales them itself."
    if isinstance(subject.config, room.Config):
        about += f" `{OWN}` is the model inside, as its authors wrote it, for scaled numbers."
    return {
        "about": about,
        "imports": "",
        "prepare": f"x = np.zeros({(1, *codec.shape)}, np.{kind})  # yours",
        "inputs": "x",
    }


def _meaning(subject: Subject, outputs: int) -> str:
    if isinstance(subject.config, room.Config) and subject.config.output != "linear":
        return "probability of the second label" if outputs == 1 else "probabilities of the labels"
    if outputs == 1:
        return "logit of the second label: its probability is the sigmoid"
    return "logits of the labels: their probabilities are the softmax"


# What differs ------------------------------------------------------------------------------------


def _layer(folder: Path, subject: Subject, raw: Sequence[dict[str, Array]], number: int) -> str:
    """The first layer whose output differs for a sample; empty where none can be named."""
    number = min(number, len(subject.examples) - 1)
    ours = _recorded(subject, number)
    made = tensorflow.replay(
        folder / MODEL, None, raw[number : number + 1], layers=[keras_name(n) for n in ours]
    )
    for name, one in ours.items():
        other = made.get(f"layer.{keras_name(name)}")
        if other is None or other.size != one.size:
            continue
        orders = (one, transposed_planes(one))  # some modules see channels last themselves
        if not min(_difference(o.reshape(-1), other.reshape(-1)) for o in orders) <= TOLERANCE:
            return "the scaled input" if name == SCALED else name
    return ""


def _recorded(subject: Subject, number: int) -> dict[str, Array]:
    """The scaled input, and what every module made of it in the order in which they finished."""
    codec = subject.codec
    columns = stack([codec.encode(subject.examples[number])], codec.ragged)
    inputs = subject.objective.collate(columns, torch.Generator()).inputs
    found = {}
    for name in ("features", "frames"):
        if name in inputs:
            found[SCALED] = inputs[name].numpy()

    def listen(name: str) -> Any:
        def hook(_module: object, _given: object, made: object) -> None:
            if isinstance(made, torch.Tensor):
                found[name] = made.detach().float().numpy()

        return hook

    handles = [m.register_forward_hook(listen(n)) for n, m in subject.model.named_modules() if n]
    try:
        with torch.inference_mode():
            subject.model.eval()(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _difference(one: Array, other: Array) -> float:
    """The largest difference relative to the largest value; infinite where shapes differ."""
    if one.shape != other.shape or not np.isfinite(other).all():
        return float("inf")
    scale = max(float(np.abs(one).max(initial=0)), 1e-6)
    return float(np.abs(one - other).max(initial=0)) / scale
