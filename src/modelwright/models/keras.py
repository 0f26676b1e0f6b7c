"""A user's own Keras 3 model, as its authors wrote it: the layers are Keras', on PyTorch.

Keras runs on several backends; on PyTorch's its variables are parameters of torch, so our loop,
optimisers and checkpoints take them like any others. The architecture is the JSON of a ``.keras``
file and travels in the config. Layers of Keras itself are built and nothing else: custom classes,
Lambda layers and whatever loads files or code are refused before the library sees them.

A last softmax or sigmoid is left out while training, since the objective reads logits; it is
there again in what is exported.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import random
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from modelwright.errors import MachineError, ModelwrightError
from modelwright.models import reading
from modelwright.models.keras_json import safe_architecture
from modelwright.models.model import ModelConfig


def library(*, torch_backend: bool = False) -> Any:
    """Keras, on PyTorch unless something else of this process has loaded it otherwise.

    Raises:
        MachineError: it is not installed, or ``torch_backend`` is asked for and it is another.
    """
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "torch"  # read when it is first imported
    try:
        import keras  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise MachineError("keras: is not installed: pip install 'modelwright[keras]'") from error
    finally:
        os.environ.pop("KERAS_BACKEND")
        if before is not None:
            os.environ["KERAS_BACKEND"] = before
    if torch_backend and keras.backend.backend() != "torch":
        raise MachineError(
            f"keras: this process has loaded it with the backend {keras.backend.backend()}; start "
            "again with KERAS_BACKEND=torch in the environment"
        )
    return keras


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Where Keras reads and writes models: no warning of its own inside, and no TensorFlow.

    It looks for TensorFlow when it writes and would load it, for nothing on PyTorch's backend,
    which takes seconds and hundreds of MiB.
    """
    absent = "tensorflow" not in sys.modules
    if absent:
        sys.modules["tensorflow"] = None  # type: ignore[assignment]  # importing it fails meanwhile
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if absent:
            del sys.modules["tensorflow"]


def _layer(kind: str, **config: Any) -> dict[str, Any]:
    found = {"module": "keras.layers", "class_name": kind, "config": config}
    return {**found, "registered_name": None}


_SPECIMEN = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {
        "name": "specimen",
        "layers": [
            _layer("InputLayer", batch_shape=[None, 6], dtype="float32", name="given"),
            _layer("Dense", units=5, activation="tanh", name="inner"),
            _layer("Dense", units=3, activation="softmax", name="output"),
        ],
    },
    "registered_name": None,
}


@dataclass(frozen=True)
class Config(ModelConfig):
    """A Keras model and what it is given; ``model: ./mine.keras`` says all of it.

    ``architecture`` is the JSON of the model; ``reads`` what a row is, "features" of the codec's
    ``shape`` or "frames", each of ``shape``, ``mean_length`` of them on average; ``outputs`` and
    ``output`` say how many numbers it gives and what the last layer makes of them.
    """

    family: ClassVar[str] = "keras"
    opaque: ClassVar[bool] = True
    specimen: ClassVar[dict[str, Any]] = {
        "architecture": json.dumps(_SPECIMEN, sort_keys=True),
        "shape": (6,),
        "outputs": 3,
        "output": "softmax",
    }
    outputs: PositiveInt
    shape: tuple[PositiveInt, ...]
    architecture: str = ""
    reads: Literal["features", "frames"] = "features"
    output: Literal["softmax", "sigmoid", "linear"] = "linear"
    mean_length: PositiveFloat = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if not self.architecture:
            raise ModelwrightError(
                "model.family: keras is what a file says; write model: ./NAME.keras in its place"
            )
        object.__setattr__(
            self, "architecture", safe_architecture(self.architecture, "model.architecture")
        )

    @property
    def features(self) -> int:
        """How many numbers a row (or a frame) has."""
        return math.prod(self.shape)

    def inputs(self, rows: int, *, short: bool = False) -> reading.Inputs:
        """Features or frames, as the model was made for."""
        kind = reading.vectors if self.reads == "features" else reading.frames
        return kind(self, rows, short=short)

    def build(self) -> Vectors | Sequences:
        """The module with fresh parameters."""
        return Vectors(self) if self.reads == "features" else Sequences(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """What the codec gives."""
        given: dict[str, Any] = {"outputs": len(codec.labels)}
        if hasattr(codec, "mean_length"):
            given |= {"reads": "frames", "shape": (codec.features,)}
            return {**given, "mean_length": float(codec.mean_length)}
        return {**given, "reads": "features", "shape": tuple(codec.shape)}

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one row, counted product by product."""
        return _counted(self)


@functools.lru_cache(maxsize=16)
def _counted(config: Config) -> float:
    """Three times the FLOPs of a forward pass; the global generator stays as it was."""
    state = torch.get_rng_state()
    model = config.build().eval()
    torch.set_rng_state(state)
    counter = FlopCounterMode(display=False)
    frames = max(1, round(config.mean_length))
    with counter, torch.no_grad():
        if config.reads == "features":
            model(torch.zeros(1, *config.shape))
        else:
            model(torch.zeros(1, frames, *config.shape), torch.tensor([frames]))
    return 3.0 * counter.get_total_flops()


def config_for(architecture: str, codec: Any, where: str) -> Config:
    """The config of a model that is to be trained on what a codec makes.

    Raises:
        ModelwrightError: its inputs or outputs do not suit the data.
    """
    keras = library(torch_backend=True)
    model = _built(architecture, where)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelwrightError(
            f"{where}: has {len(model.inputs)} inputs and {len(model.outputs)} outputs; a model of "
            "one each is trained here"
        )
    if not (hasattr(codec, "shape") or hasattr(codec, "mean_length")):
        raise ModelwrightError(
            f"{where}: models of Keras read numbers, images or frames here; choose a task of those"
        )
    fields = Config.data_fields(codec)
    asked = tuple(model.input_shape[1:])
    if fields["reads"] == "frames":
        suits, meant = asked == (None, *fields["shape"]), f"(None, {fields['shape'][0]})"
    else:
        suits, meant = _reshaped(fields["shape"], asked), str(fields["shape"])
    if not suits:
        raise ModelwrightError(
            f"{where}: reads rows of shape {asked}, the data have {meant}; give its Input that"
        )
    outputs, labels = tuple(model.output_shape[1:]), len(codec.labels)
    if outputs != (labels,) and not (outputs == (1,) and labels == 2):
        raise ModelwrightError(
            f"{where}: gives {outputs}, the data have {labels} labels; give its last layer as many "
            "units"
        )
    _check_losses(model, where)
    last = _last(keras, model)[1]
    if last == "softmax" and outputs == (1,):
        raise ModelwrightError(
            f"{where}: the softmax of a single output is always 1; write sigmoid, or two units"
        )
    fields |= {"outputs": outputs[0], "output": last}
    return Config(architecture=architecture, **fields)


def _check_losses(model: Any, where: str) -> None:
    """Nothing in it may add to the loss: the objective's is the whole."""
    found = "a layer inside has a regularizer" if model.losses else ""
    for layer in model.layers:
        for kind in ("kernel", "bias", "recurrent", "activity"):
            if getattr(layer, f"{kind}_regularizer", None) is not None:
                found = f"{layer.name} has a {kind}_regularizer"
    if found:
        raise ModelwrightError(
            f"{where}: {found}, which the loss here does not add; save it without, and write "
            "train.weight_decay"
        )


def _reshaped(given: tuple[int, ...], asked: tuple[int | None, ...]) -> bool:
    """Whether rows of one shape are those of another but for sides of 1, or as one long row."""
    plain = [tuple(n for n in shape if n != 1) for shape in (given, asked)]
    return plain[0] == plain[1] or asked == (math.prod(given),)


# Building ----------------------------------------------------------------------------------------


def _built(architecture: str, where: str = "model.architecture") -> Any:
    """The model of Keras with fresh variables, drawn from torch's generator."""
    keras = library()
    # Keras seeds an initialiser that has no seed of its own from Python's generator.
    before = random.getstate()
    random.seed(int(torch.randint(1 << 62, (), device="cpu")))
    device = "meta" if torch.get_default_device().type == "meta" else None
    try:
        with quiet(), keras.device(device) if device else contextlib.nullcontext():
            model = keras.saving.deserialize_keras_object(json.loads(architecture), safe_mode=True)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        line = " ".join(str(error).split())[:200]
        raise ModelwrightError(
            f"{where}: Keras {keras.__version__} cannot build it ({line})"
        ) from error
    finally:
        random.setstate(before)
    if not model.built or not model.inputs:
        raise ModelwrightError(
            f"{where}: does not say what it reads; begin it with keras.Input and save it again"
        )
    model.supports_masking = True  # a Sequential would warn of masks that its layers do take
    return model


def _last(keras: Any, model: Any) -> tuple[Any, str]:
    """The layer that makes the outputs, and its nonlinearity: softmax, sigmoid or linear."""
    layer = model.layers[-1] if hasattr(model, "layers") else model
    if isinstance(layer, keras.layers.Softmax):
        return layer, "softmax"
    kind = getattr(getattr(layer, "activation", None), "__name__", "linear")
    return layer, kind if kind in ("softmax", "sigmoid") else "linear"


def _without_last(keras: Any, model: Any) -> Any:
    """The model that gives logits; it shares all variables."""
    layer, kind = _last(keras, model)
    if kind == "linear":
        return model
    if isinstance(layer, keras.layers.Softmax | keras.layers.Activation):
        return keras.Model(model.inputs, layer.input)
    layer.activation = keras.activations.linear
    return model


def named_variables(model: Any) -> list[tuple[str, Any]]:
    """The variables of a model by names that every process gives them: of layer and kind."""
    found: dict[str, Any] = {}
    for layer in model.layers:
        for variable in layer.weights:
            name = re.sub(r"\W", "_", f"{layer.name}_{variable.name}")
            number = sum(n == name or n.startswith(f"{name}__") for n in found)
            found[f"{name}__{number}" if number else name] = variable
    return list(found.items())


def own_model(config: Config, module: nn.Module) -> Any:
    """The user's model as its authors wrote it, with the weights of a trained module."""
    made = _built(config.architecture)
    tensors = module.state_dict()
    for name, variable in named_variables(made):
        variable.assign(tensors[f"weights.{name}"].detach().cpu().numpy())
    return made


def activated(config: Config, logits: Tensor) -> Tensor:
    """What the model's own last layer makes of logits (B, outputs)."""
    if config.output == "softmax":
        return logits.softmax(dim=1)
    return logits.sigmoid() if config.output == "sigmoid" else logits


class Own(nn.Module):
    """A model of Keras whose variables are this module's parameters and buffers.

    Keras' own variables are only names of places: every call is given the values.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        keras = library(torch_backend=True)
        model = _built(config.architecture)
        self.weights = nn.Module()
        names = {}
        for name, variable in named_variables(model):
            names[id(variable)] = name
            if variable.trainable:
                self.weights.register_parameter(name, variable.value)
            else:
                self.weights.register_buffer(name, variable.value.data)
        steps = getattr(model, "operations", model.layers)
        layers = [s for s in steps if not isinstance(s, keras.layers.InputLayer)]
        self.masks = all(getattr(layer, "supports_masking", False) for layer in layers)
        net = _without_last(keras, model)
        self._trained = [names[id(v)] for v in net.trainable_variables]
        # None stands for the state of a generator of random numbers.
        self._others = [(names.get(id(v)), tuple(v.shape)) for v in net.non_trainable_variables]
        self._net = (net,)  # in a tuple: as a submodule it would bring every tensor again
        self._device = keras.device

    def called(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, outputs)."""
        trained = [self.weights.get_parameter(name) for name in self._trained]
        others = [
            self._drawn(shape, x.device) if name is None else self.weights.get_buffer(name)
            for name, shape in self._others
        ]
        with self._device(str(x.device)):
            found, after = self._net[0].stateless_call(
                trained, others, x, training=self.training, mask=mask
            )
        if self.training:
            self._keep(after)
        logits: Tensor = found
        return logits

    def _drawn(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """What dropout draws follows from torch's generator, as all else."""
        if not self.training:
            return torch.zeros(shape, dtype=torch.int64, device=device)
        return torch.randint(1 << 31, shape, device="cpu").to(device)

    @torch.no_grad()
    def _keep(self, after: list[Tensor]) -> None:
        """The statistics of batch norms, as far as they are finite (see models/images.py)."""
        for (name, _), value in zip(self._others, after, strict=True):
            if name is not None:
                held = self.weights.get_buffer(name)
                held.copy_(torch.where(value.isfinite(), value, held))


class Vectors(Own):
    """Numbers or images (B, *shape) to logits (B, outputs)."""

    def forward(self, features: Tensor) -> Tensor:
        """Logits of rows, in the shape that the model asks for."""
        return self.called(features.reshape(len(features), *self._net[0].input_shape[1:]))


class Sequences(Own):
    """Frames (B, T, width) of ``lengths`` (B,) to logits (B, outputs).

    Where every layer knows masks, padding is masked; else rows of one length go together, without
    any padding, so that it can change nothing (law 4).
    """

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits after the true frames, ``lengths`` >= 1."""
        longest = frames.shape[1]
        if bool((lengths == longest).all()):
            return self.called(frames)
        if self.masks:
            true = torch.arange(longest, device=frames.device) < lengths[:, None]
            return self.called(frames, true)
        rows, parts = [], []
        for length in sorted(set(lengths.tolist())):
            some = (lengths == length).nonzero()[:, 0]
            rows.append(some)
            parts.append(self.called(frames[some, :length]))
        return torch.cat(parts)[torch.cat(rows).argsort()]
