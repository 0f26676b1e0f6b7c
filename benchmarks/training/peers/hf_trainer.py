"""HF Trainer: pretraining, fine-tuning on documents of many lengths, classification.

Its bf16 on a CPU is autocast through accelerate. ``torch.compile`` made it slower at these shapes
(and recompiles for every new length), so it stays off; the optimiser is its default, fused AdamW.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.training import data
from benchmarks.training.clock import Clock, emit, peak_bytes
from benchmarks.training.shapes import (
    CLASSIFIER,
    CLASSIFIER_DROPOUT,
    SHAPES,
    TUNED,
    TUNED_HIDDEN,
)

Item = dict[str, Any]


class Rows(torch.utils.data.Dataset[Item]):
    """Items in a list, as its Trainer wants them."""

    def __init__(self, rows: list[Item]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        return self.rows[index]


class Stamps(TrainerCallback):
    """Stamp the clock before the first step and after every step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Before the first step."""
        self.clock.stamp()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """After a step."""
        self.clock.stamp()


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("speed", "tune", "classify"))
    parser.add_argument("--shape", default="S", choices=SHAPES)
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--grouped", action="store_true", help="batches of similar lengths")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    chosen = {"speed": speed, "tune": tune, "classify": classify}[arguments.what]
    with tempfile.TemporaryDirectory() as folder:
        chosen(arguments, Clock(), folder)


def train(
    model: torch.nn.Module,
    rows: list[Item],
    collate: Any,
    arguments: argparse.Namespace,
    folder: str,
    **settings: Any,
) -> Clock:
    """One pass of its Trainer over the rows; the stamps of its steps, and the losses."""
    clock = Clock()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            bf16=arguments.precision == "bfloat16",
            num_train_epochs=1,
            lr_scheduler_type="constant",
            logging_strategy="steps",
            logging_steps=settings.pop("logging_steps", 1_000_000),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            seed=arguments.seed,
            **settings,
        ),
        train_dataset=Rows(rows),
        data_collator=collate,
        callbacks=[Stamps(clock)],
    )
    done = trainer.train()
    clock.losses = [done.training_loss]
    return clock


def speed(arguments: argparse.Namespace, clock: Clock, folder: str) -> None:
    """Seconds of ordinary steps of its GPT-2."""
    shape = SHAPES[arguments.shape]
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=shape.vocabulary,
            n_positions=shape.context,
            n_embd=shape.width,
            n_layer=shape.depth,
            n_head=shape.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
        )
    )
    steps = arguments.warmup + arguments.steps
    tokens = data.stream(shape.vocabulary, 500_000, arguments.seed)
    starts = np.random.default_rng(arguments.seed).integers(
        len(tokens) - shape.context, size=steps * shape.batch
    )
    rows = [{"tokens": torch.from_numpy(tokens[s : s + shape.context])} for s in starts]

    def collate(items: list[Item]) -> dict[str, Tensor]:
        stacked = torch.stack([item["tokens"] for item in items])
        return {"input_ids": stacked, "labels": stacked}

    rates = {"learning_rate": 1e-3, "per_device_train_batch_size": shape.batch}
    clock = train(model, rows, collate, arguments, folder, **rates)
    clock.report(arguments.warmup, shape.tokens)


def llama() -> LlamaForCausalLM:
    """The decoder that is fine-tuned."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=TUNED.vocabulary,
            hidden_size=TUNED.width,
            intermediate_size=TUNED_HIDDEN,
            num_hidden_layers=TUNED.depth,
            num_attention_heads=TUNED.heads,
            num_key_value_heads=TUNED.heads,
            max_position_embeddings=TUNED.context,
            tie_word_embeddings=False,
            use_cache=False,
        )
    )


def padded(items: list[Item]) -> dict[str, Tensor]:
    """Rows padded to the longest of the batch; what is padding is not learned."""
    tokens = [item["input_ids"] for item in items]
    inputs = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=-100)
    return {"input_ids": inputs, "labels": labels, "attention_mask": (labels >= 0).long()}


def document_rows(documents: list[data.Tokens]) -> list[Item]:
    """Documents as its rows; the column ``length`` spares it from measuring them."""
    return [{"input_ids": torch.from_numpy(d), "length": len(d)} for d in documents]


def tune(arguments: argparse.Namespace, clock: Clock, folder: str) -> None:
    """Useful tokens a second over one pass of documents of many lengths."""
    model = llama()
    settings = {"per_device_train_batch_size": TUNED.batch}
    if arguments.grouped:
        settings |= {"train_sampling_strategy": "group_by_length", "length_column_name": "length"}
    warmup = document_rows(data.documents(TUNED.vocabulary, 4 * TUNED.batch, seed=99))
    train(model, warmup, padded, arguments, folder, learning_rate=0.0, **settings)
    documents = data.documents(TUNED.vocabulary, arguments.documents, arguments.seed)
    rows = document_rows(documents)
    clock = train(model, rows, padded, arguments, folder, learning_rate=5e-4, **settings)
    report_tuning(clock, documents, model, arguments.precision)


def report_tuning(
    clock: Clock, documents: list[data.Tokens], model: torch.nn.Module, precision: str
) -> None:
    """Print the line of a fine-tuning, with the loss of documents that were held out."""
    peak, total, count = peak_bytes(), 0.0, 0
    model.eval()
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")
    with torch.no_grad(), autocast:
        for document in data.documents(TUNED.vocabulary, 64, seed=77):
            row = torch.from_numpy(document)[None]
            total += float(model(input_ids=row, labels=row).loss) * (len(document) - 1)
            count += len(document) - 1
    emit(
        tokens=sum(map(len, documents)),
        seconds=clock.stamps[-1] - clock.stamps[0],
        start_up_seconds=clock.stamps[0],
        losses=clock.losses,
        held_out_loss=total / count,
        training_peak_bytes=peak,
        parameters=sum(p.numel() for p in model.parameters()),
    )


def classify(arguments: argparse.Namespace, clock: Clock, folder: str) -> None:
    """Samples a second over one pass of film reviews."""
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=CLASSIFIER.vocabulary,
            hidden_size=CLASSIFIER.width,
            num_hidden_layers=CLASSIFIER.depth,
            num_attention_heads=CLASSIFIER.heads,
            intermediate_size=4 * CLASSIFIER.width,
            max_position_embeddings=CLASSIFIER.context,
            hidden_dropout_prob=CLASSIFIER_DROPOUT,
            attention_probs_dropout_prob=CLASSIFIER_DROPOUT,
            num_labels=2,
        )
    )

    def collate(items: list[Item]) -> dict[str, Tensor]:
        rows = padded(items)
        return {**rows, "labels": torch.tensor([item["label"] for item in items])}

    def rows(count: int, seed: int) -> list[Item]:
        found = data.reviews(CLASSIFIER.vocabulary, CLASSIFIER.context, count, seed)
        return [{"input_ids": torch.from_numpy(t), "label": y} for t, y in found]

    settings = {"per_device_train_batch_size": CLASSIFIER.batch}
    warmup = rows(2 * CLASSIFIER.batch, 99)
    train(model, warmup, collate, arguments, folder, learning_rate=0.0, **settings)
    chosen = rows(arguments.documents, arguments.seed)
    clock = train(model, chosen, collate, arguments, folder, learning_rate=5e-4, **settings)
    emit(
        tokens=len(chosen),
        seconds=clock.stamps[-1] - clock.stamps[0],
        mean_length=float(np.mean([len(r["input_ids"]) for r in chosen])),
        start_up_seconds=clock.stamps[0],
        losses=clock.losses,
    )


if __name__ == "__main__":
    main()
