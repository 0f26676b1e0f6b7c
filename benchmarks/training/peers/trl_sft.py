"""TRL's SFTTrainer with packing: documents joined into rows of the context, best fit first.

A step holds one packed row, about as many useful tokens as eight documents: more rows a step
would be other updates, and more memory.
"""

from __future__ import annotations

import argparse
import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from benchmarks.training import data
from benchmarks.training.clock import Clock
from benchmarks.training.peers.hf_trainer import Stamps, llama, report_tuning
from benchmarks.training.shapes import TUNED


def main() -> None:
    """Measure useful tokens a second over one pass of documents of many lengths."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    model = llama()
    warmup = data.documents(TUNED.vocabulary, 4 * TUNED.batch, seed=99)
    documents = data.documents(TUNED.vocabulary, arguments.documents, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        train(model, warmup, arguments, folder, 0.0)
        clock = train(model, documents, arguments, folder, 5e-4)
    report_tuning(clock, documents, model, arguments.precision)


def numbers() -> PreTrainedTokenizerFast:
    """A tokenizer that it can be given for data that are numbers already."""
    words = {str(i): i for i in range(TUNED.vocabulary)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="0"))  # noqa: S106 - a token of text
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="0", eos_token="0")  # noqa: S106


def train(
    model: torch.nn.Module,
    documents: list[data.Tokens],
    arguments: argparse.Namespace,
    folder: str,
    rate: float,
) -> Clock:
    """One pass over the documents; the stamps of its steps."""
    clock = Clock()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=arguments.precision == "bfloat16",
            packing=True,
            max_length=TUNED.context,
            per_device_train_batch_size=1,
            gradient_checkpointing=False,
            num_train_epochs=1,
            learning_rate=rate,
            lr_scheduler_type="constant",
            logging_steps=1_000_000,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            seed=arguments.seed,
        ),
        train_dataset=Dataset.from_list([{"input_ids": d.tolist()} for d in documents]),
        processing_class=numbers(),
        callbacks=[Stamps(clock)],
    )
    clock.losses = [trainer.train().training_loss]
    return clock


if __name__ == "__main__":
    main()
