"""What the tests of the hub share: tiny published checkpoints, made by transformers, and a hub.

Tokenizers are trained on real text; weights are random.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers
END = "<|endoftext|>"
VOCABULARY = 400


def bpe(texts):
    """A byte-level BPE as GPT-2 has it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[END],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    return made


def own_text():
    """Real English text that every checkout has: this package's own source."""
    import modelwright.hub.files as one

    return [Path(one.__file__).read_text(encoding="utf-8")]


def gpt2(folder, *, seed=0, **fields):
    """A tiny GPT-2 with its tokenizer, saved by transformers; returns their model."""
    import transformers

    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=128,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
    )
    for name, value in fields.items():
        setattr(config, name, value)
    model = transformers.GPT2LMHeadModel(config).eval()
    quietly(model.save_pretrained, folder)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe(own_text()), eos_token=END, bos_token=END
    )
    fast.save_pretrained(folder)
    return model


def t5(folder, text):
    """A tiny T5 with a tokenizer of the text's letters, saved by transformers."""
    transformers = pytest.importorskip("transformers")
    control = ["<pad>", "</s>", "<unk>"]
    letters = sorted({c for c in text if not c.isspace()})
    pieces = [*control, *(w for x in letters for w in (x, f"\u2581{x}")), "\u2581"]
    unigram = Tokenizer(models.Unigram([(p, -1.0) for p in pieces], unk_id=2))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    unigram.add_special_tokens(control)
    unigram.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], special_tokens=[("</s>", 1)]
    )
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=unigram, **names)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=len(pieces) + 3, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    quietly(transformers.T5ForConditionalGeneration(config).save_pretrained, folder)


def quietly(function, *arguments, **named):
    """Without progress bars."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    return function(*arguments, **named)


def edit_config(folder, **fields):
    """Change fields of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_weights(folder, change):
    """Rewrite model.safetensors as ``change`` leaves its tensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({k: t.contiguous() for k, t in tensors.items()}, path, metadata={"format": "pt"})


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, files, asked, *rest):
        self.files, self.asked = files, asked
        super().__init__(*rest)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.asked.append(path)
        content, headers = self.files.get(path, (None, {}))
        self.send_response(404 if content is None else 200)
        content = content or b""
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def hub(name, folder, commit):
    """A hub on the loopback that has one repository: its address, and what was asked for."""
    files, siblings = {}, []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"', "X-Linked-Etag": f'"{digest}"'}
        files[f"/{name}/resolve/{commit}/{path.name}"] = (content, headers)
        siblings.append({"rfilename": path.name, "size": len(content)})
    about = json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode()
    kind = {"Content-Type": "application/json"}
    tree = [
        {"type": "file", "path": s["rfilename"], "size": s["size"], "oid": "0" * 40}
        for s in siblings
    ]
    for revision in ("main", commit):
        files[f"/api/models/{name}/revision/{revision}"] = (about, kind)
        files[f"/api/models/{name}/tree/{revision}"] = (json.dumps(tree).encode(), kind)
    asked: list[str] = []
    made = functools.partial(_Handler, files, asked)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), made)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
