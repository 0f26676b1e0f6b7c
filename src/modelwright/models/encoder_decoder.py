"""What encoder-decoders share: layers, packed pairs of documents, and a cache for generation.

An encoder reads the sources, a decoder writes the targets, and every layer of the decoder looks
at what the encoder made of the target's own source (arXiv:1706.03762). Sources stand one after
another and so do targets, so nothing is padded.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modelwright.kernels.dropout import Dropout
from modelwright.models import reading
from modelwright.models.attention import Cache, positions_in
from modelwright.models.model import ModelConfig
from modelwright.models.packed import MultiHead, TwoLayers, equal_starts, near_size


@dataclass(frozen=True)
class PairConfig(ModelConfig):
    """What the configs of encoder-decoders share."""

    inputs = reading.text_pairs

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """A codec of pairs decides vocabulary, longest text, and how a target begins and ends."""
        return {
            "vocabulary": codec.vocabulary,
            "context": codec.longest,
            "start": codec.start,
            "end": codec.end,
            "padding": codec.padding,
        }

    @classmethod
    def of_size(cls, parameters: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Depth (of both sides), width and heads whose matrices hold about ``parameters``."""
        hidden = int(fixed.get("hidden", 0))
        return near_size(
            parameters, fixed, lambda d, w: d * (12 * w * w + 4 * w * (hidden or 4 * w))
        )


@dataclass
class PairCache(Cache):
    """The cache of a decoder, and the keys and values of its sources, which never change.

    ``cross`` holds for every layer keys and values (B, heads, S, head_width); of row i the first
    ``source_lengths[i]`` are real.
    """

    cross: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    source_lengths: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    def sources_seen(self) -> Tensor:
        """Which keys of the sources are real, (B, 1, 1, S)."""
        lengths = self.source_lengths
        span = torch.arange(self.cross[0][0].shape[2], device=lengths.device)
        return (span < lengths[:, None])[:, None, None]

    def taken(self, rows: Tensor) -> PairCache:
        """A copy with the rows of these numbers (n,), and their sources."""
        own = super().taken(rows)
        return PairCache(
            own.keys,
            own.values,
            own.lengths,
            own.previous,
            cross=[(k[rows], v[rows]) for k, v in self.cross],
            source_lengths=self.source_lengths[rows],
        )


class Layer(nn.Module):
    """Attention, in a decoder attention to the source, and feed-forward, each with a norm.

    ``first`` says whether a norm stands before its part, x + f(norm x), or after the sum,
    norm(x + f(x)).
    """

    def __init__(
        self,
        norm: Callable[[], nn.Module],
        attention: MultiHead,
        cross: MultiHead | None,
        feed_forward: TwoLayers,
        *,
        first: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention_norm, self.attention = norm(), attention
        self.cross_norm = norm() if cross is not None else None
        self.cross = cross
        self.feed_norm, self.feed_forward = norm(), feed_forward
        self.first = first
        self.dropout = Dropout(dropout)

    def _added(self, x: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        if self.first:
            added: Tensor = x + self.dropout(part(norm(x)))
            return added
        normed: Tensor = norm(x + self.dropout(part(x)))
        return normed

    def forward(
        self,
        x: Tensor,
        starts: Tensor,
        bias: Tensor | None,
        memory: Tensor | None = None,
        sources: Tensor | None = None,
    ) -> Tensor:
        """Map the stream x (N, width) of packed documents.

        ``bias`` (heads, T, T) is added to the products of attention (see ``attend``); a decoder's
        layer looks at ``memory`` (M, width), its documents bounded by ``sources``.
        """
        causal = self.cross is not None
        x = self._added(
            x, self.attention_norm, lambda y: self.attention(y, starts, causal=causal, bias=bias)
        )
        if self.cross is not None and memory is not None and sources is not None:
            cross = self.cross
            x = self._added(
                x,
                cast(nn.Module, self.cross_norm),
                lambda y: cross.across(y, memory, starts, sources),
            )
        return self._added(x, self.feed_norm, self.feed_forward)

    def cached(
        self,
        x: Tensor,
        layer: tuple[Tensor, Tensor, Tensor],
        bias: Tensor | None,
        source: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """The same for rows x (B, T, width) that continue a cache.

        ``layer`` and ``bias`` as of ``MultiHead.cached``; ``source`` are keys, values and mask
        of the sources.
        """
        cross = cast(MultiHead, self.cross)
        x = self._added(x, self.attention_norm, lambda y: self.attention.cached(y, layer, bias))
        x = self._added(x, cast(nn.Module, self.cross_norm), lambda y: cross.looking(y, *source))
        return self._added(x, self.feed_norm, self.feed_forward)


class EncoderDecoder(nn.Module):
    """Sources and the targets so far to logits of the next tokens.

    A family gives ``encoder_layers`` and ``decoder_layers`` and what surrounds them: how tokens
    are embedded, what is added to the products of attention, and the head.
    """

    encoder_layers: nn.ModuleList
    decoder_layers: nn.ModuleList
    recompute = False  # activations of the layers in the backward pass, to save memory

    @abstractmethod
    def embedded(self, tokens: Tensor, positions: Tensor, *, decoding: bool) -> Tensor:
        """The stream (..., width) of tokens (...) at their positions in their documents."""

    @abstractmethod
    def ended(self, x: Tensor, *, decoding: bool) -> Tensor:
        """The stream after the last layer."""

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) of the decoder's stream."""

    def document_bias(self, longest: int, *, decoding: bool) -> Tensor | None:  # noqa: ARG002
        """What is added to the products of attention, (heads, longest, longest), if anything."""
        return None

    def cached_bias(self, positions: Tensor, span: int) -> Tensor | None:  # noqa: ARG002
        """The same for queries at ``positions`` (B, T) and ``span`` keys: (B, heads, T, span)."""
        return None

    def _through(self, tokens: Tensor, starts: Tensor, *given: Tensor, decoding: bool) -> Tensor:
        positions = positions_in(starts, len(tokens))
        bias = self.document_bias(int(starts.diff().max()), decoding=decoding)
        x = self.embedded(tokens, positions, decoding=decoding)
        for layer in self.decoder_layers if decoding else self.encoder_layers:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, starts, bias, *given, use_reentrant=False)
            else:
                x = layer(x, starts, bias, *given)
        return self.ended(x, decoding=decoding)

    def encode(self, sources: Tensor, source_starts: Tensor | None = None) -> Tensor:
        """What the encoder makes of sources (M,) of packed documents: (M, width).

        Without ``source_starts`` (documents + 1,) the sources are (documents, S), all real.
        """
        starts = equal_starts(sources) if source_starts is None else source_starts
        return self._through(sources.flatten(), starts, decoding=False)

    @torch.no_grad()
    def new_cache(
        self, sources: Tensor, capacity: int, source_starts: Tensor | None = None
    ) -> PairCache:
        """A cache for targets of at most ``capacity`` tokens, one for each source.

        The sources (as of ``encode``) are read here, once.
        """
        starts = equal_starts(sources) if source_starts is None else source_starts
        memory = self.encode(sources, source_starts)
        lengths = starts.diff()
        span = torch.arange(int(lengths.max()), device=memory.device)
        rows = (starts[:-1, None] + span).clamp(max=len(memory) - 1)  # (B, S)
        keys, values, cross = [], [], []
        for layer in self.decoder_layers:
            looking = cast(MultiHead, cast(Layer, layer).cross)
            k, v = looking.keys_values(memory)
            cross.append((k[rows].transpose(1, 2), v[rows].transpose(1, 2)))
            shape = (len(lengths), looking.heads, capacity, looking.head_width)
            keys.append(memory.new_zeros(shape))
            values.append(memory.new_zeros(shape))
        read = torch.zeros_like(lengths)
        return PairCache(keys, values, read, cross=cross, source_lengths=lengths)

    def hidden(
        self,
        tokens: Tensor,
        sources: Tensor | None = None,
        cache: PairCache | None = None,
        counts: Tensor | None = None,
        *,
        starts: Tensor | None = None,
        source_starts: Tensor | None = None,
    ) -> Tensor:
        """The decoder's stream after its last layer, (B, T, width); see ``forward``."""
        if cache is not None:
            return self._continued(tokens, cache, counts)
        if sources is None:
            raise ValueError("an encoder-decoder needs the sources, or a cache that has read them")
        memory = self.encode(sources, source_starts)
        first = equal_starts(sources) if source_starts is None else source_starts
        starts = equal_starts(tokens) if starts is None else starts
        x = self._through(tokens.flatten(), starts, memory, first, decoding=True)
        return x.view(*tokens.shape, -1)

    def _continued(self, tokens: Tensor, cache: PairCache, counts: Tensor | None) -> Tensor:
        b, t = tokens.shape
        positions = cache.lengths[:, None] + torch.arange(t, device=tokens.device)
        bias = self.cached_bias(positions, int(positions.max()) + 1)
        seen = cache.sources_seen()
        x = self.embedded(tokens, positions, decoding=True)
        for i, layer in enumerate(self.decoder_layers):
            own = (cache.keys[i], cache.values[i], positions)
            x = cast(Layer, layer).cached(x, own, bias, (*cache.cross[i], seen))
        read = torch.full((b,), t, device=tokens.device) if counts is None else counts
        cache.lengths = cache.lengths + read
        cache.previous = tokens.gather(1, (read - 1)[:, None])[:, 0]
        return self.ended(x, decoding=True)

    def forward(
        self,
        tokens: Tensor,
        sources: Tensor | None,
        cache: PairCache | None = None,
        counts: Tensor | None = None,
        *,
        starts: Tensor | None = None,
        source_starts: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, vocabulary) for the targets so far, tokens (B, T).

        Args:
            tokens: what the decoder reads: the start token, then the target.
            sources: (B, S), or (M,) with ``source_starts``; None with a cache, which has read
                them.
            cache: of ``new_cache``; the tokens continue its rows.
            counts: (B,) how many of the T tokens of each row of the cache are real, padded on
                the right.
            starts: (documents + 1,) where targets begin among the B x T tokens read row by row;
                left out, every row is one. Target i sees source i.
            source_starts: (documents + 1,) the same of the sources.
        """
        hidden = self.hidden(
            tokens, sources, cache, counts, starts=starts, source_starts=source_starts
        )
        return self.head(hidden)
