"""TRL's trainers, with packing and PEFT, and the HF Trainer with grouped lengths.

A step of packing holds one row of the whole context, about as many tokens as the others' eight
documents. Gradient checkpointing, TRL's default, is off: at this size it costs a fifth of the
speed. TRL has no DPO without padding at present: a step's pairs are read one by one, so that only
the shorter answer is padded, and the reference is computed beforehand, which spares a second model.
Its steps are of the same pairs in the same order as ours.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from benchmarks.training.clock import Clock, emit, peak_bytes
from benchmarks.training.data import Tokens
from benchmarks.training.peers.hf_trainer import Rows, Stamps, document_rows, padded
from benchmarks.tuning.work import (
    ALPHA,
    BATCH,
    BETAS,
    CONTEXT,
    DPO_BETA,
    HELD_OUT,
    PAIRS,
    RANK,
    RATES,
    VOCABULARY,
    Pair,
    arguments,
    documents,
    in_turn,
    pairs,
)

Model = torch.nn.Module
END = "<end>"  # token 0 as text


class Spent(NamedTuple):
    """Seconds of wall time and of all processors."""

    seconds: float = 0.0
    cpu: float = 0.0


def main() -> None:
    """Tune what the command line says; print one line of JSON."""
    given = arguments("full", "lora", "dpo", "grouped-full", "grouped-lora")
    torch.manual_seed(given.seed)
    model = LlamaForCausalLM.from_pretrained(given.base, dtype=torch.float32)
    preferring = given.what == "dpo"
    rate = RATES[given.what.removeprefix("grouped-")]
    trained, lora = [trl_sft, trl_dpo][preferring], None
    if given.what.endswith("lora"):
        lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", lora_dropout=0.0)
    if given.what.startswith("grouped"):
        trained = grouped
        if lora is not None:
            model, lora = get_peft_model(model, lora), None
    rows: Any = pairs if preferring else documents
    size = PAIRS if preferring else BATCH
    chosen, warmup = rows(given.documents, given.seed), rows(4 * size, 990 if preferring else 99)
    if preferring:
        chosen = in_turn(chosen, size, given.seed)
    judge = Judge(model, preferring, given.precision == "bfloat16")
    with tempfile.TemporaryDirectory() as folder:
        model, _, _ = trained(model, warmup, settings(given, folder, 0.0), lora)
        model, spent, loss = trained(model, chosen, settings(given, folder, rate), None)
    peak = peak_bytes()
    emit(
        tokens=sum(r.read if isinstance(r, Pair) else len(r) for r in chosen),
        seconds=spent.seconds,
        cpu_seconds=spent.cpu,
        losses=[loss],
        training_peak_bytes=peak,
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        held_out_loss=judge(model),
    )


def settings(given: Any, folder: str, rate: float) -> dict[str, Any]:
    """What all trainers are told alike, and what is ours: betas, no decay, the norm cut at 1."""
    return {
        "output_dir": folder,
        "use_cpu": True,
        "bf16": given.precision == "bfloat16",
        "num_train_epochs": 1,
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "logging_steps": 1_000_000,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": given.seed,
    }


def numbers() -> PreTrainedTokenizerFast:
    """A tokenizer for data that are numbers already."""
    words = {str(i): i for i in range(VOCABULARY)}
    words[END] = words.pop("0")
    tokenizer = Tokenizer(WordLevel(words, unk_token=END))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=END, eos_token=END)


def timed(trainer: Any, clock: Clock, before: Spent) -> tuple[Model, Spent, float]:
    """The tuned model, the time from the first step's beginning to the last one's end, the loss.

    ``before`` is what was spent already.
    """
    cpu = time.process_time()
    done = trainer.train()
    seconds = clock.stamps[-1] - clock.stamps[0]
    spent = Spent(before.seconds + seconds, before.cpu + time.process_time() - cpu)
    return trainer.model, spent, done.training_loss


def grouped(
    model: Model, rows: list[Tokens], given: dict[str, Any], lora: Any
) -> tuple[Model, Spent, float]:
    """One pass of the HF Trainer, batches of similar lengths padded to their longest."""
    del lora  # in the model already
    clock = Clock()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            **given,
            per_device_train_batch_size=BATCH,
            train_sampling_strategy="group_by_length",
            length_column_name="length",
            remove_unused_columns=False,
        ),
        train_dataset=Rows(document_rows(rows)),
        data_collator=padded,
        callbacks=[Stamps(clock)],
    )
    return timed(trainer, clock, Spent())


def trl_sft(
    model: Model, rows: list[Tokens], given: dict[str, Any], lora: Any
) -> tuple[Model, Spent, float]:
    """One pass of TRL's SFTTrainer over packed rows."""
    clock = Clock()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            **given,
            packing=True,
            max_length=CONTEXT,
            per_device_train_batch_size=1,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list([{"input_ids": row.tolist()} for row in rows]),
        processing_class=numbers(),
        callbacks=[Stamps(clock)],
        peft_config=lora,
    )
    return timed(trainer, clock, Spent())


class Referring(DPOTrainer):
    """Keeps how long the reference took, which is part of the work."""

    spent = Spent()

    def _precompute_ref_logps(self, *given: Any, **more: Any) -> Any:
        began, cpu = time.time(), time.process_time()
        found = super()._precompute_ref_logps(*given, **more)
        self.spent = Spent(time.time() - began, time.process_time() - cpu)
        return found


def dpo_trainer(model: Model, rows: list[Pair], given: dict[str, Any], clock: Clock) -> Referring:
    """TRL's DPOTrainer for pairs of numbers."""

    def text(tokens: Tokens) -> str:
        return "".join(f" {n or END}" for n in tokens)

    found = [
        {"prompt": text(p.prompt), "chosen": text(p.chosen), "rejected": text(p.rejected)}
        for p in rows
    ]
    return Referring(
        model=model,
        args=DPOConfig(
            **given,
            beta=DPO_BETA,
            max_length=CONTEXT,
            train_sampling_strategy="sequential",
            per_device_train_batch_size=1,
            gradient_accumulation_steps=PAIRS,
            precompute_ref_log_probs=True,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(found),
        processing_class=numbers(),
        callbacks=[Stamps(clock)],
    )


def trl_dpo(
    model: Model, rows: list[Pair], given: dict[str, Any], lora: Any
) -> tuple[Model, Spent, float]:
    """One pass of TRL's DPOTrainer, the reference's part included."""
    del lora
    clock = Clock()
    trainer = dpo_trainer(model, rows, given, clock)
    return timed(trainer, clock, trainer.spent)


class Judge:
    """The mean loss of rows that were held out."""

    def __init__(self, model: Model, preferring: bool, narrow: bool) -> None:
        self.preferring, self.narrow = preferring, narrow
        self.before = self._pairs(model) if preferring else None

    def __call__(self, model: Model) -> float:
        """A token's, or a pair's by the reference that ``model`` was at first."""
        if self.before is not None:
            ratio = self._pairs(model) - self.before
            lead = DPO_BETA * (ratio[:, 0] - ratio[:, 1])
            return float(-torch.nn.functional.logsigmoid(lead).mean())
        rows = documents(HELD_OUT, 77)
        return -float(sum(self._sum(model, r, 1) for r in rows)) / sum(len(r) - 1 for r in rows)

    def _pairs(self, model: Model) -> torch.Tensor:
        return torch.stack(
            [
                torch.stack(
                    [
                        self._sum(model, np.concatenate([p.prompt, answer]), len(p.prompt))
                        for answer in (p.chosen, p.rejected)
                    ]
                )
                for p in pairs(HELD_OUT, 770)
            ]
        )

    def _sum(self, model: Model, tokens: Tokens, given: int) -> torch.Tensor:
        """Log p of the tokens after the first ``given``."""
        training = model.training
        model.eval()
        row = torch.from_numpy(tokens)[None]
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.narrow):
            logits = model(input_ids=row).logits[0, given - 1 : -1].float()
        model.train(training)
        return -torch.nn.functional.cross_entropy(logits, row[0, given:], reduction="sum")


if __name__ == "__main__":
    main()
