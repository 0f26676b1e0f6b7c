"""datatrove's side: ``python datatrove_copies.py MODE INPUT OUTPUT [TOKENIZER]``.

Its local MinHash pipeline of four stages as its own example has it (5-grams, 14 buckets of 8
hashes, 64-bit xxhash), one task and one worker, so that one core does all; "full" puts its Gopher
and C4 filters before and its tokenizer behind. Needs no part of modelwright.
"""

import json
import resource
import sys
import time
from pathlib import Path

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.filters import (
    C4QualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers.jsonl import JsonlWriter


def main(mode: str, source: str, out: str, tokenizer: str = "") -> None:
    config = MinhashConfig()
    work = Path(out) / "work"
    stages: dict[str, float] = {}
    began = time.perf_counter()

    def run(name: str, pipeline: list, tasks: int = 1) -> None:
        start = time.perf_counter()
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=1, logging_dir=str(work / "logs" / name)
        ).run()
        stages[name] = time.perf_counter() - start

    texts = source
    if mode == "full":
        texts = str(work / "filtered")
        run(
            "filters",
            [
                JsonlReader(source),
                GopherRepetitionFilter(),
                GopherQualityFilter(),
                C4QualityFilter(),
                JsonlWriter(texts, compression=None),
            ],
        )
    run("signatures", [JsonlReader(texts), MinhashDedupSignature(f"{work}/signatures", config)])
    run(
        "buckets",
        [MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)],
        tasks=config.num_buckets,
    )
    run("cluster", [MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)])
    removed = JsonlWriter(f"{work}/removed", compression=None)
    kept = JsonlWriter(f"{work}/kept", compression=None)
    run("filter", [JsonlReader(texts), MinhashDedupFilter(f"{work}/remove", removed), kept])
    if mode == "full":
        run(
            "tokens",
            [
                JsonlReader(f"{work}/kept"),
                DocumentTokenizer(f"{work}/tokens", tokenizer, shuffle_documents=False),
            ],
        )
    seconds = time.perf_counter() - began
    ids = [
        json.loads(line)["id"]
        for path in sorted((work / "removed").rglob("*.jsonl"))
        for line in path.open(encoding="utf-8", newline="\n")  # a text may hold other line ends
    ]
    (Path(out) / "removed.txt").write_text("\n".join(ids), encoding="utf-8")
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(u.ru_utime + u.ru_stime for u in used)
    print(json.dumps({"cpu": cpu, "seconds": seconds, "stages": stages, "removed": len(ids)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
