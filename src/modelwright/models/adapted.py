"""A model of the ``transformers`` library behind our interface: second class, and says so.

For published models that no family of ours can hold. Its code is that library's, its speed too:
documents are padded to the longest, logits of all positions are made whole, and generation reads
the text anew for every token, for such models keep their caches in ways of their own. Only classes
of the library itself are built; a config that names code of its own is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from modelwright.errors import MachineError, ModelwrightError
from modelwright.models import reading
from modelwright.models.attention import Cache
from modelwright.models.causal import LanguageModel, advance
from modelwright.models.model import ModelConfig, outputs_of

_AUTO = {"causal": "AutoModelForCausalLM", "classification": "AutoModelForSequenceClassification"}
_TINY = {
    "model_type": "gpt_neox",
    "vocab_size": 300,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "hidden_dropout": 0.0,
}


@dataclass(frozen=True)
class Config(ModelConfig):
    """What ``config.json`` says, and what the model is for.

    ``architecture`` is the JSON of a published config; ``context`` the longest text, 1024 where
    that config states none.
    """

    family: ClassVar[str] = "adapted"
    inputs = reading.texts
    opaque: ClassVar[bool] = True
    specimen: ClassVar[dict[str, Any]] = {"architecture": json.dumps(_TINY), "vocabulary": 300}
    vocabulary: PositiveInt
    architecture: str = ""
    head: Literal["causal", "classification"] = "causal"
    classes: PositiveInt = 2
    context: PositiveInt = 64

    def __post_init__(self) -> None:
        if not self.architecture:
            raise ModelwrightError(
                "model.family: adapted is what a published config says; write model: {from: "
                "FOLDER or hub:NAME, through: transformers} in its place"
            )

    def build(self) -> nn.Module:
        """The module with fresh parameters."""
        return Causal(self) if self.head == "causal" else Classifier(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """A text codec decides the vocabulary, labels the head."""
        needed: dict[str, Any] = {"vocabulary": codec.vocabulary, "head": "causal"}
        if hasattr(codec, "labels"):
            needed |= {"head": "classification", "classes": outputs_of(codec)}
        return needed

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """6 per parameter and token, tables of embeddings left out."""
        with torch.device("meta"):
            model = self.build()
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        return 6.0 * sum(p.numel() for p in model.parameters() if id(p) not in tables)


def library() -> Any:
    """The ``transformers`` library.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import transformers  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise MachineError(
            "model.through: transformers is not installed: pip install 'modelwright[transformers]'"
        ) from error
    return transformers


class Adapted(nn.Module):
    """A model of the library."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        known = library()
        values = {**json.loads(config.architecture), "vocab_size": config.vocabulary}
        if values.get("auto_map"):
            raise ModelwrightError(
                "model.through: config.json names code of its own (auto_map), which is never run; "
                "use a model whose class is part of transformers"
            )
        kind = values.pop("model_type", None)
        if kind not in known.models.auto.configuration_auto.CONFIG_MAPPING:
            raise ModelwrightError(
                f"model.through: transformers {known.__version__} knows no model_type {kind!r}; "
                "install a newer one, or choose another model"
            )
        if config.head == "classification":
            values |= {"num_labels": config.classes, "problem_type": None}
            values.pop("id2label", None)
            values.pop("label2id", None)
        theirs = known.AutoConfig.for_model(kind, **values)
        theirs.use_cache = False
        if getattr(theirs, "pad_token_id", None) is None:
            theirs.pad_token_id = 0  # whatever it is, the mask tells padding
        try:
            self.inner = getattr(known, _AUTO[config.head]).from_config(
                theirs, attn_implementation="sdpa"
            )
        except ValueError as error:
            reason = " ".join(str(error).split())[:160]
            raise ModelwrightError(f"model.through: {kind}: {reason}") from error
        self.padding = int(theirs.pad_token_id)

    def _grid(self, tokens: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Packed tokens (N,) as rows (documents, longest), and which of these are tokens."""
        lengths = starts.diff()
        numbers = torch.arange(int(lengths.max()), device=tokens.device)
        kept = numbers < lengths[:, None]
        grid = tokens.new_full(kept.shape, self.padding)
        grid[kept] = tokens
        return grid, kept


class Classifier(Adapted):
    """Packed texts to logits (documents, classes)."""

    def forward(self, tokens: Tensor, starts: Tensor | None = None) -> Tensor:
        """Logits for tokens (N,) with the documents' ``starts``, or for rows (documents, T)."""
        if starts is None:
            starts = torch.arange(0, tokens.numel() + 1, tokens.shape[-1], device=tokens.device)
        grid, kept = self._grid(tokens.flatten(), starts)
        logits: Tensor = self.inner(input_ids=grid, attention_mask=kept.long()).logits
        return logits


class Causal(Adapted, LanguageModel):
    """A language model, with the methods that objectives and the engine call."""

    @property
    def head_weight(self) -> Tensor:
        """The matrix (vocabulary, width) of the library's head."""
        weight: Tensor = self.inner.get_output_embeddings().weight
        return weight

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """What has been read: the tokens themselves stand where others keep keys."""
        at = next(self.parameters()).device
        read = torch.zeros(batch, 1, capacity, 1, dtype=torch.long, device=at)
        return Cache([read], [read.new_zeros(batch, 1, capacity, 0)], read.new_zeros(batch))

    def hidden(
        self,
        tokens: Tensor,
        cache: Cache | None = None,
        counts: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, vocabulary), which ``head`` leaves as they are; as ``Decoder.hidden``."""
        b, t = tokens.shape
        if cache is not None:
            return self._continued(tokens, cache, counts)
        if starts is None:
            logits: Tensor = self.inner(input_ids=tokens).logits
            return logits
        grid, kept = self._grid(tokens.flatten(), starts)
        rows: Tensor = self.inner(input_ids=grid, attention_mask=kept.long()).logits[kept]
        return rows.view(b, t, -1)

    def _continued(self, tokens: Tensor, cache: Cache, counts: Tensor | None) -> Tensor:
        b, t = tokens.shape
        positions = cache.lengths[:, None] + torch.arange(t, device=tokens.device)
        read = cache.keys[0][:, 0, :, 0]
        read.scatter_(1, positions, tokens)
        new = torch.full((b,), t, device=tokens.device) if counts is None else counts
        lengths = cache.lengths + new
        span = int(positions.max()) + 1
        kept = torch.arange(span, device=tokens.device) < lengths[:, None]
        kept |= ~kept.any(1, keepdim=True)  # an empty row sees its padding rather than nothing
        grid = read[:, :span].masked_fill(~kept, self.padding)
        logits = self.inner(input_ids=grid, attention_mask=kept.long()).logits
        advance(cache, tokens, counts)
        index = positions.clamp_max(span - 1)[..., None].expand(b, t, logits.shape[-1])
        found: Tensor = logits.gather(1, index)
        return found

    def head(self, hidden: Tensor) -> Tensor:
        """Logits in float32."""
        return hidden.float()

    def negative_log_likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Sum over rows of -log p(target), in nats, for logits (n, vocabulary) and targets (n,)."""
        return F.cross_entropy(hidden.float(), targets, reduction="sum")

    def log_probabilities(
        self, hidden: Tensor, targets: Tensor, temperature: float = 1.0
    ) -> Tensor:
        """Log p of every target (n,), for logits (n, vocabulary) divided by ``temperature``."""
        return -F.cross_entropy(hidden.float() / temperature, targets, reduction="none")


def config_for(stored: Mapping[str, Any]) -> Config:
    """The config of a published model by its config.json."""
    names = [str(n) for n in stored.get("architectures") or []]
    labelled = any(n.endswith("ForSequenceClassification") for n in names)
    longest = next(
        (int(stored[n]) for n in ("max_position_embeddings", "n_positions") if n in stored), 0
    )
    return Config(
        architecture=json.dumps(dict(stored), sort_keys=True),
        vocabulary=int(stored["vocab_size"]),
        head="classification" if labelled else "causal",
        classes=max(2, len(stored.get("id2label") or {})),
        context=longest if 0 < longest < math.inf else 1024,
    )
