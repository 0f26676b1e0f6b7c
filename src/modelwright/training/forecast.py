"""What a training of a decoder takes before it is begun: memory, and the time of a step.

Memory is counted tensor by tensor, as the code allocates it. Time is a roofline: every product at
the measured speed of products of its size, everything else at the measured memory bandwidth.
Both are forecasts; ``benchmarks/forecast.py`` holds them against trainings.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from modelwright import runtime
from modelwright.kernels import elementwise
from modelwright.kernels.attention import packed_attention
from modelwright.kernels.likelihood import fits
from modelwright.models import likelihood
from modelwright.models.decoder import Config

# Bytes of optimiser state for a parameter; "muon" is AdamW outside the blocks' matrices.
STATE_BYTES = {
    "sgd": 4.0,
    "adam": 8.0,
    "adamw": 8.0,
    "muon": 4.0,
    "adafactor": 0.0,  # a row and a column for a matrix
    "lion": 4.0,
    "schedule_free": 8.0,
}
PROGRAM_BYTES = 350 << 20  # Python, torch and its libraries on a CPU, once they have worked
# Memory held for a byte of saved activations. On Linux what is freed between two saved tensors is
# too small for the next: 1.3 in float32, 1.45 in bfloat16 measured at 12 x 768, of which 0.05
# remain when glibc is told to map every tensor by itself (MALLOC_MMAP_THRESHOLD_=65536).
FRAGMENTS = {"cpu": 1.4, "cuda": 1.1}
# Bytes wasted for a byte of activations in pieces below 32 MiB on a CPU, for any byte on a GPU.
# glibc takes such pieces from one heap: where a small neighbour lives on, what is freed is too
# short for the next piece of the same size. Larger ones are mapped by themselves and waste
# nothing, nor do gradients, which stay. The heap grows over the first steps: 0.2 to 0.9 were
# measured after four, 0.0 where every piece was mapped (MALLOC_MMAP_THRESHOLD_=65536).
WASTE = {"cpu": 0.5, "cuda": 0.1}
SAFE = 0.85  # of the free memory may be planned with: what is forecast within 15 %
SIZES = (128, 256, 512, 1024, 2048)  # of the square products that are measured
# Memory traffic of what is no product, in bytes per byte of saved activations: norms, casts and
# rotations are operations of their own that read and write; fitted to 12 x 768 uncompiled.
PASSES_OVER_ACTIVATIONS = 15.0
NEWTON_SCHULZ = 5  # iterations of Muon


@dataclass(frozen=True)
class Work:
    """One update of a decoder: ``accumulate`` micro-batches of ``rows`` windows of the context.

    ``shards`` processes divide parameters, gradients and optimiser state (FSDP).
    """

    config: Config
    rows: int
    accumulate: int = 1
    optimizer: str = "muon"
    precision: str = "float32"
    recompute: bool = False
    ema: bool = False
    shards: int = 1

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.rows * self.config.context

    @property
    def narrow(self) -> int:
        """Bytes of a number in a product."""
        return 4 if self.precision == "float32" else 2


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a step, by what they hold.

    ``passing`` is what comes and goes: of the forward and backward pass, or of the update, the
    larger of the two.
    """

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    passing: float
    program: float

    @property
    def total(self) -> float:
        """All of it."""
        lasting = self.parameters + self.gradients + self.optimizer
        return lasting + self.activations + self.passing + self.program


def parameter_count(config: Config) -> int:
    """Every parameter: matrices, tables and gains."""
    c = config
    kv_width = c.width // c.heads * c.kv_heads
    tables = (1 if c.tied else 2) * c.vocabulary * c.width + c.bigrams * c.width
    mixing = c.depth // 2 if c.value_embeddings else 0
    gains = c.depth * (2 * c.width + 2 * c.width // c.heads + 2 * c.shortcuts) + 2 * c.width
    return c.matrix_parameters() + tables + mixing * (c.vocabulary * kv_width + 2) + gains


def activation_bytes(work: Work, device: str = "cpu") -> tuple[float, float]:
    """Bytes a token saves for the backward pass: (in one block, beside the blocks).

    Counted from the code and checked against what autograd saves (tests/training/test_forecast):
    in float32 of the width 40 bytes (stream, norms, queries, their norm and rotation, attention's
    output), of the keys' and values' width 16, of the hidden width 8 (16 where gated), and 12 a
    head for the norms' and the softmax' sums; in bfloat16 the inputs of products take half, while
    stream, norms and rotations stay float32. Where ``kernels/elementwise`` takes its passes at
    once, of the width 18 bytes (stream and result of two norms, queries before and after their
    rotation, attention's output), of the keys' and values' width 6, of the hidden width 2, for a
    square takes the place of what was squared.
    """
    c, wide = work.config, work.narrow == 4
    kv_width = c.width // c.heads * c.kv_heads
    gated = c.feed_forward == "gated"
    if work.precision == "bfloat16" and device == "cpu" and elementwise.available():
        fused = 18 * c.width + 6 * kv_width + (8 if gated else 2) * c.hidden_width
        fused += 8 + 4 * (2 * c.heads + c.kv_heads)
        fused += 4 * c.width * c.shortcuts + 3 * kv_width * c.value_embeddings
        return float(fused), 17.0 * c.width
    of_width = 40 if wide else (38 if gated else 36)
    block = of_width * c.width + (16 if wide else 12) * kv_width
    block += (2 if wide else 1) * (8 if gated else 4) * c.hidden_width + 12 * c.heads + 8
    block += 4 * c.width * c.shortcuts
    block += (4 if wide else 3) * kv_width * c.value_embeddings  # in every second block twice that
    return float(block), 17.0 * c.width


def head_bytes(work: Work) -> float:
    """Bytes of the chunked head at its worst: the weight's gradient and a chunk's logits.

    float32: the sum, to which products are added. bfloat16: the sum in 4 bytes, a product and the
    weight in 2 each; without the kernel the product once more in 4 while it is added. The logits
    of a chunk are there twice in 2 bytes with the kernel, four times in 4 without.
    """
    c = work.config
    fast = fused_head(work)
    of_weight = 4 if work.narrow == 4 else (8 if fast else 12)
    chunk = min(work.tokens, chunk_rows(work))
    return float(of_weight * c.vocabulary * c.width + (4 if fast else 16) * chunk * c.vocabulary)


def fused_head(work: Work) -> bool:
    """Whether the kernel for the loss is taken: bfloat16 on a processor that has it."""
    if work.narrow == 4 or runtime.device().type != "cpu":
        return False
    return fits(torch.empty(1, dtype=torch.bfloat16))


def chunk_rows(work: Work) -> int:
    """Rows that the head works on at once."""
    return likelihood._rows(work.config.vocabulary, fast=fused_head(work))


def memory(work: Work, program: float = PROGRAM_BYTES, device: str = "cpu") -> Memory:
    """The peak of a step after the first, which finds the optimiser's state in place.

    Three moments can be the peak. In the head, all activations are there, and the gradients only
    from the micro-batch before; at the end of the backward pass, all gradients; in the update,
    Muon's momenta and the stacks of its iteration beside the gradients.
    """
    c, tokens = work.config, work.tokens
    count, matrices = parameter_count(c), c.matrix_parameters()
    held = 4.0 * count / work.shards
    each = STATE_BYTES[work.optimizer] + 4.0 * work.ema
    state = each * count + (4.0 * (count - matrices) if work.optimizer == "muon" else 0.0)
    block, beside = activation_bytes(work, device)
    blocks = 4.0 * c.width * c.depth + block if work.recompute else c.depth * block
    activations = FRAGMENTS[device] * tokens * (blocks + beside)
    copies = 0.0 if work.narrow == 4 else 2.0 * matrices  # autocast keeps all until its end
    if work.shards > 1:  # what is gathered of a block, and of the next one meanwhile
        copies = 2.0 * work.narrow * max(matrices / c.depth, c.vocabulary * c.width)
    table = 4.0 * c.vocabulary * c.width  # the embedding's gradient, before it is added
    update = 0.0
    if work.optimizer == "muon":  # its momenta are collected whole, each process works on its share
        update = 4.0 * matrices + (3.0 * work.narrow) * matrices / work.shards
    moments = [
        (held if work.accumulate > 1 else 0.0, activations, copies + head_bytes(work)),
        (held, 0.0, max(table, update)),
    ]
    gradients, saved, passing = max(moments, key=sum)
    return Memory(held, gradients, state / work.shards, saved, passing, program)


def fit_to_memory(wanted: Work, free: float, program: float = 0.0, device: str = "cpu") -> Work:
    """The same update in the fewest micro-batches that ``free`` bytes hold.

    Smaller micro-batches first, which cost little; then the activations are recomputed, which
    costs a third of the products. What fits in no way comes back as small as can be.
    """
    rows = wanted.rows * wanted.accumulate
    cuts = [n for n in range(wanted.accumulate, rows + 1) if rows % n == 0]
    choice = wanted
    for recompute in (False, True):
        for cut in cuts:
            choice = replace(
                wanted, rows=rows // cut, accumulate=cut, recompute=recompute or wanted.recompute
            )
            if memory(choice, program, device).total <= SAFE * free:
                return choice
    return choice


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second.

    ``products`` maps the side of a square product to FLOP/s, ``attention`` is FLOP/s of causal
    attention forward and backward, ``bandwidth`` bytes/s read and written.
    """

    products: Mapping[int, float]
    attention: float
    bandwidth: float

    def product(self, rows: int, inner: int, columns: int) -> float:
        """FLOP/s of a product: that of the square one of as many FLOPs, interpolated in logs.

        A narrow one uses what it has read less often: it counts as one of four times its least
        side at most.
        """
        side = min((rows * inner * columns) ** (1 / 3), 4 * min(rows, inner, columns))
        known = sorted(self.products.items())
        if side <= known[0][0]:
            return known[0][1]
        for (a, low), (b, high) in pairwise(known):
            if side <= b:
                share = math.log(side / a) / math.log(b / a)
                between: float = low * (high / low) ** share
                return between
        return known[-1][1]


@dataclass(frozen=True)
class Seconds:
    """Seconds of one update by what takes them."""

    products: float
    attention: float
    head: float
    memory: float
    update: float

    @property
    def total(self) -> float:
        """The whole step."""
        return self.products + self.attention + self.head + self.memory + self.update


def step_seconds(work: Work, rates: Rates) -> Seconds:
    """The time of one update."""
    c, n = work.config, work.tokens
    again = 4 / 3 if work.recompute else 1.0
    products = 3 * again * sum(_seconds(rates, n, i, o) for i, o in _matrices(c)) * c.depth
    attention = again * 6.0 * c.depth * c.width * c.context * n / rates.attention
    block, beside = activation_bytes(work)
    traffic = PASSES_OVER_ACTIVATIONS * n * (again * c.depth * block + beside)
    traffic += 0 if work.narrow == 4 else 6.0 * c.matrix_parameters()  # weights made narrow
    chunk = min(n, chunk_rows(work))
    chunks = math.ceil(n / chunk)
    head = 3 * chunks * _seconds(rates, chunk, c.width, c.vocabulary)
    # A chunk reads the weight twice and adds to the sum, in float32 within the product, else after
    # it is written; its logits are gone over about ten times.
    weight = (16.0 if work.narrow == 4 else 24.0) * c.vocabulary * c.width
    head += chunks * (weight + 40.0 * chunk * c.vocabulary) / rates.bandwidth
    return Seconds(
        products=work.accumulate * products,
        attention=work.accumulate * attention,
        head=work.accumulate * head,
        memory=work.accumulate * traffic / rates.bandwidth,
        update=_update_seconds(work, rates),
    )


def _matrices(c: Config) -> Iterator[tuple[int, int]]:
    """(inputs, outputs) of a block's products."""
    kv_width = c.width // c.heads * c.kv_heads
    yield from ((c.width, c.width), (c.width, kv_width), (c.width, kv_width), (c.width, c.width))
    yield from ((c.width, c.hidden_width), (c.hidden_width, c.width))
    if c.feed_forward == "gated":
        yield c.width, c.hidden_width


def _seconds(rates: Rates, rows: int, inner: int, columns: int) -> float:
    return 2.0 * rows * inner * columns / rates.product(rows, inner, columns)


def _update_seconds(work: Work, rates: Rates) -> float:
    """Clipping reads every gradient and scales it; the update reads and writes all there is."""
    count, c = parameter_count(work.config), work.config
    state = memory(work).optimizer
    seconds = (count * (12.0 + 4.0 + 8.0) + 2 * state) / rates.bandwidth
    if work.optimizer == "muon":
        for inner, columns in _matrices(c):
            short, long = sorted((inner, columns))
            square = _seconds(rates, short, short, short)
            wide = _seconds(rates, short, long, short)
            seconds += c.depth * NEWTON_SCHULZ * (square + 2 * wide)
    return seconds


def probe(precision: str, seconds: float = 5.0) -> Rates:
    """Measure this machine for about ``seconds``: products by size, attention, memory."""
    each = seconds / (len(SIZES) + 3)
    at, kind = runtime.device(), runtime.PRECISIONS[precision]
    products = {}
    for size in SIZES:
        a, b = (torch.randn(size, size, device=at).to(kind) for _ in range(2))
        products[size] = 2.0 * size**3 / _best(functools.partial(torch.mm, a, b), each)
    count = 1 << 24  # 64 MiB: beyond the caches
    from_, to = (torch.ones(count, device=at) for _ in range(2))
    copied = 8.0 * count / _best(lambda: to.copy_(from_), each)
    return Rates(products, _attention_rate(precision, 2 * each), copied)


def _best(work: Callable[[], object], seconds: float) -> float:
    """The first quartile of ``work``'s times within about ``seconds``: others only slow it."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        begin = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 4]


def _attention_rate(precision: str, seconds: float) -> float:
    rows, heads, width = 1024, 8, 64
    shape = (rows, heads, width)
    at, kind = runtime.device(), runtime.PRECISIONS[precision]
    q, k, v = (torch.randn(shape, device=at).to(kind).requires_grad_() for _ in range(3))
    starts = torch.tensor([0, rows], device=at)

    def work() -> None:
        packed_attention(q, k, v, starts, width**-0.5).sum().backward()  # type: ignore[no-untyped-call]

    return 6.0 * heads * width * rows * rows / _best(work, seconds)
