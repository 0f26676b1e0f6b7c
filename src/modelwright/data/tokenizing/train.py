"""Train a byte-level tokenizer: BPE (arXiv:1508.07909) or a unigram model (arXiv:1804.10959).

Both work on bytes, so any text can be encoded and gives itself back, in every script.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from modelwright.data.tokenizing.alphabet import SPECIAL, SPLIT, encodable
from modelwright.data.tokenizing.fast import GPT2, GPT4, QWEN2
from modelwright.errors import MachineError, ModelwrightError, did_you_mean

KINDS = ("bpe", "unigram")
# Where text is cut into words before the merges: by our own pattern, or by published ones, which
# programs such as llama.cpp know by name.
SPLITS = {"own": SPLIT, "gpt2": GPT2, "llama3": GPT4, "qwen2": QWEN2}
SMALLEST = 256 + len(SPECIAL)


def train_tokenizer(
    texts: Iterable[str], *, kind: str = "bpe", vocabulary: int, split: str = "own"
) -> Tokenizer:
    """Learn a tokenizer from ``texts``, which must be of the train split (law 11).

    Args:
        texts: any text; memory grows with its distinct words, so give a sample (``quotas``).
        kind: "bpe" or "unigram".
        vocabulary: how many tokens there shall be, the special ones included.
        split: where text is cut into words, a name of ``SPLITS``.

    Raises:
        ModelwrightError: an unknown kind or split, or a vocabulary that cannot hold every byte.
        MachineError: "unigram" needs sentencepiece.
    """
    if kind not in KINDS:
        raise ModelwrightError(
            f"tokenizer.kind: no kind {kind!r}{did_you_mean(kind, KINDS)}; "
            f"known: {', '.join(KINDS)}"
        )
    if split not in SPLITS:
        raise ModelwrightError(
            f"tokenizer.split: no split {split!r}{did_you_mean(split, SPLITS)}; "
            f"known: {', '.join(SPLITS)}"
        )
    if vocabulary < SMALLEST:
        raise ModelwrightError(
            f"tokenizer.vocabulary: {vocabulary} is below {SMALLEST}, "
            "the 256 bytes and the special tokens; raise it"
        )
    words = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLITS[split]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram(_pieces(map(encodable, texts), words, vocabulary)))
        tokenizer.add_special_tokens(list(SPECIAL))  # they are there: now they are special
    else:
        tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = words, decoders.ByteLevel()
    if kind == "bpe":
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(map(encodable, texts), trainer)
    return tokenizer


def _pieces(texts: Iterable[str], words: Any, vocabulary: int) -> list[tuple[str, float]]:
    """Tokens of a unigram model and their logarithms of probability, the special ones first.

    By sentencepiece on one thread, whose result is the same every time; the trainer of the
    tokenizers library sums in the order of a hash table that is seeded anew in every process.
    """
    try:
        import sentencepiece  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise MachineError(
            "tokenizer.kind: unigram needs sentencepiece, which is not installed: "
            "pip install 'modelwright[data]'"
        ) from error
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in words.pre_tokenize_str(text))
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    stored = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(f"{word}\t{count}" for word, count in order),
        input_format="tsv",
        model_writer=stored,
        model_type="unigram",
        vocab_size=vocabulary - len(SPECIAL) + 1,  # one is its own token for the unknown
        hard_vocab_limit=False,
        character_coverage=1.0,
        required_chars="".join(sorted(pre_tokenizers.ByteLevel.alphabet())),
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_unicode_script=False,
        split_by_number=False,
        split_by_whitespace=False,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=stored.getvalue())
    found = {model.id_to_piece(i): model.get_score(i) for i in range(1, model.vocab_size())}
    least = min(found.values()) - 1.0
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    longer = [(piece, score) for piece, score in found.items() if len(piece) > 1]
    return [
        *((token, 0.0) for token in SPECIAL),
        *((letter, found.get(letter, least)) for letter in letters),  # bytes never met as well
        *longer[: vocabulary - SMALLEST],  # the most probable come first
    ]


def quotas(bytes_of: Mapping[str, int], budget: int) -> dict[str, float]:
    """The share of each source's text to train on, so that the sources weigh alike.

    Every source may give the same number of bytes; what a small one cannot give is divided
    among the others.

    Args:
        bytes_of: source -> bytes of its train text.
        budget: bytes in all.
    """
    shares: dict[str, float] = {}
    left = budget
    by_size = sorted(bytes_of, key=lambda s: (bytes_of[s], s))
    for i, source in enumerate(by_size):
        allowed = left // (len(by_size) - i)
        size = bytes_of[source]
        shares[source] = min(1.0, allowed / size) if size else 1.0
        left -= min(size, allowed)
    return shares


def drawn(seed: int, name: str, share: float) -> bool:
    """Whether a row is in a sample of ``share``: a fair coin of the seed and the row's name."""
    if share >= 1.0:
        return True
    digest = hashlib.blake2b(f"{seed}/{name}".encode(errors="backslashreplace"), digest_size=8)
    return int.from_bytes(digest.digest(), "little") < share * 2.0**64
