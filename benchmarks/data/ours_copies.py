"""Our side: ``python -m benchmarks.data.ours_copies MODE INPUT OUTPUT [TOKENIZER]``.

MODE "dedup" reads, deduplicates and writes; "full" also filters and tokenizes. Prints one line of
JSON: seconds, by stage, and the ids that left as copies (into OUTPUT/removed.txt).
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.data.planted_copies import NEAR
from modelwright.data.corpus import records
from modelwright.data.corpus.build import build
from modelwright.data.corpus.components import fate_path
from modelwright.data.corpus.spec import CorpusSpec


def main(mode: str, source: str, out: str, tokenizer: str = "") -> None:
    began = time.perf_counter()
    made: dict[str, Any] = {
        "name": "copies",
        "sources": [
            {"path": f"{source}/*.jsonl", "name": "texts", "reader": {"jsonl": {"key": "id"}}}
        ],
        "deduplicate": {"threshold": NEAR},
        "split": {"validation": 0.0, "test": 0.0},
    }
    if mode == "full":
        made["steps"] = [{"quality": {"rules": ["gopher", "c4"]}}]
        made["tokenizer"] = {"file": tokenizer}
    stages: dict[str, float] = {}
    last = [began]

    def say(line: str) -> None:
        """The engine speaks when a stage is done: the stage is the first word."""
        now = time.perf_counter()
        stage = line.partition(":")[0].partition(" ")[0]
        stages[stage] = stages.get(stage, 0.0) + now - last[0]
        last[0] = now

    folder = Path(out) / "corpus"
    build(CorpusSpec.model_validate(made), folder, engine="inline", say=say)
    seconds = time.perf_counter() - began
    units = [p.name for p in sorted((folder / "stages" / "read").iterdir()) if p.is_dir()]
    removed = [
        fate["id"].rpartition(":")[2]
        for unit in units
        for fate in records.rows(fate_path(folder, unit), ("id", "kept"))
        if not fate["kept"]
    ]
    (Path(out) / "removed.txt").write_text("\n".join(removed), encoding="utf-8")
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(u.ru_utime + u.ru_stime for u in used)
    print(json.dumps({"cpu": cpu, "seconds": seconds, "stages": stages, "removed": len(removed)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
