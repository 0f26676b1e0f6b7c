"""Every fault of serving, S1 to S29: the tests that hold it, and the heavy ones at their counts.

    python -m tests.slow.serving_faults [--scale 1] [--only S1,S16]

Writes benchmarks/results/serving_faults.json and serving_faults.md: the fault, what must hold, held
of tried. Rows named "at full count" are of tests/slow; ``--scale`` multiplies what they do, and the
table says with what (1: 100,000 fuzzed requests, 10,000 connections, 1,000 slow clients, an hour of
soak, 200 mixes). A case that does not hold is kept with what was said; nothing is tried twice.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from typing import Any

from tests.slow.fault_table import RESULTS, judged, keep

SERVER, DEFENCE = "tests/serving/test_server.py", "tests/serving/test_defence.py"
MEDIA, PROCESS = "tests/serving/test_media.py", "tests/serving/test_engine_process.py"
HEAVY = "tests/slow/test_serving_load.py"
TESTS = {
    "S1": f"{SERVER} -k 'no_json or wrong_field or half_a or missing or makes_the or plain_json'",
    "S2": f"{SERVER} -k 'announced'",
    "S3": f"{SERVER} {DEFENCE} -k 'headers'",
    "S4": "tests/serving/test_engine.py tests/serving/test_openai_client.py"
    " -k 'leave_room or errors_are'",
    "S5": f"{SERVER} tests/serving/test_sampling.py -k 'wrong_field or out_of_range'",
    "S6": "tests/serving/test_steering.py tests/serving/test_tools.py"
    " -k 'grammar or what_is_wrong'",
    "S7": f"{MEDIA} -k 'picture or kinds'",
    "S8": f"{MEDIA} -k 'sound or lost'",
    "S9": f"{MEDIA} -k 'fetched'",
    "S10": "tests/serving/test_predictor.py tests/test_checkpoint.py"
    " -k 'no_file_is_read or names_that_leave or links'",
    "S11": "tests/hub/test_files.py tests/data_stage/test_chat_template.py"
    " -k 'pickle or code_of or no_file_elsewhere or cut_file or damaged or sandbox or limits'",
    "S12": f"{SERVER} -k 'over_capacity'",
    "S13": f"{DEFENCE} -k 'more_connections or headers_that_do_not'",
    "S14": f"{DEFENCE} -k 'headers_that_do_not'",
    "S15": f"{DEFENCE} -k 'takes_nothing'",
    "S16": f"{SERVER} {PROCESS} -k 'leaves or given_up'",
    "S17": f"{DEFENCE} -k 'storm'",
    "S18": f"{DEFENCE} -k 'too_long'",
    "S19": f"{SERVER} {DEFENCE} {PROCESS} -k 'signal or told_to_stop or outlives'",
    "S20": f"{DEFENCE} {PROCESS} -k 'dies or killed_or_stopped'",
    "S21": f"tests/serving/test_engine.py {PROCESS} -k 'stalled or not_well'",
    "S22": f"{SERVER} {DEFENCE} tests/serving/test_wholes.py -k 'needs_the_key or open_paths'",
    "S23": f"{SERVER} tests/serving/test_origins.py -k 'strangers or another_name or no_other_page"
    " or no_page'",
    "S24": f"{DEFENCE} -k 'rate'",
    "S25": f"{DEFENCE} -k 'log_has'",
    "S26": f"{DEFENCE} -k 'counts'",
    "S27": "tests/models/test_routed.py tests/pipeline/test_named_adapters.py",
    "S28": "tests/serving/test_sharing.py -k 'law_5'",
}
FULL = {
    "S1": f"{HEAVY} -k 'fuzzed'",
    "S12": f"{HEAVY} -k 'capacity'",
    "S13": f"{HEAVY} -k 'ten_thousand'",
    "S14": f"{HEAVY} -k 'slow_clients'",
    "S16": f"{HEAVY} -k 'leave_free'",
    "S19": f"{HEAVY} -k 'told_to_end'",
    "S28": "tests/slow/test_law_5_mixes.py",
    "S29": f"{HEAVY} -k 'hour'",
}
FULL_NAME = " at full count"
WORDS = {
    "S1": "broken JSON, UTF-8 and types, fuzzed: 4xx in OpenAI's shape, never 5xx",
    "S2": "bodies over the limit: 413, read no further",
    "S3": "headers without end: refused, closed in time",
    "S4": "prompts longer than the context, empty ones: 400 with the counts",
    "S5": "fields at their extremes: 400, the field named",
    "S6": "grammars and schemas that are wrong or bombs: an error of their request alone",
    "S7": "pictures of every kind, cut, mislabelled, too large by their headers: read or 400",
    "S8": "sound that is damaged or too long; a decoder that dies: its own request alone",
    "S9": "URLs in requests: nothing is fetched",
    "S10": "paths and links from outside: refused",
    "S11": "hostile checkpoints and templates: nothing of theirs runs",
    "S12": "more than may wait: 429 and Retry-After, sooner than an answer",
    "S13": "connections that say nothing: closed in time, the others served within a second",
    "S14": "headers and bodies at a byte a second: closed in time, nobody delayed by a second",
    "S15": "a reader that takes nothing: cut, its row freed",
    "S16": "clients that leave, in every phase: all is free within a second",
    "S17": "a storm of aborts: no cross-talk, no hang",
    "S18": "deadlines: 504 or an error event, the work stopped",
    "S19": "told to stop under load: what is under way is finished, exit in time, no orphan",
    "S20": "the engine killed: an error, never a false finish; started again a few times",
    "S21": "the engine stopped or stalled: health says so",
    "S22": "every route with no, a wrong and the right key",
    "S23": "strangers' Host and Origin: 403 on every method",
    "S24": "rates of requests and tokens of a key: 429 and Retry-After",
    "S25": "line breaks and prompts in the log: a line a request, no word of it",
    "S26": "gauges 0 after all of it, counters what was sent",
    "S27": "adapters loaded, taken out, wrong: an error of that caller alone",
    "S28": "the same request alone and beside others, bit for bit, in reproducible mode",
    "S29": "mixed requests for an hour: memory and descriptors flat",
}


def tallied(name: str, tests: str, *flags: str, **extra: str) -> dict[str, Any]:
    """Held of tried, and the last lines that the heavy tests print of themselves."""
    began = time.monotonic()
    cases, said = judged(tests, *flags, **extra)
    if skipped := re.search(r"(\d+) skipped", said.splitlines()[-1]):
        cases += [f"skipped, so nothing was shown: {said.splitlines()[-1]}"] * int(skipped[1])
    held = sum(not case for case in cases)
    figures = {
        "held": held,
        "tried": len(cases) or 1,
        "seconds": round(time.monotonic() - began, 1),
        "failed": [case for case in cases if case][:20],
    }
    if flags:
        lines = [line.strip(". ") for line in said.splitlines()]
        figures["said"] = [line for line in lines if re.search(r"\d", line)][-9:-1]
    print(f"{name}: {held} of {figures['tried']}", flush=True)
    return figures


def main() -> int:
    """Run the chosen cases; 1 when one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of what the heavy tests do")
    parser.add_argument("--only", default=",".join(WORDS), help="such as S1,S16")
    parser.add_argument("--heavy", action="store_true", help="the heavy tests alone")
    parser.add_argument("--light", action="store_true", help="the tests of the suite alone")
    options = parser.parse_args()
    words = dict(WORDS)
    found: dict[str, Any] = {}
    command = f"python -m tests.slow.serving_faults {' '.join(sys.argv[1:])}".strip()
    for name in options.only.split(","):
        jobs = {}
        if name in TESTS and not options.heavy:
            jobs[name] = tallied(name, TESTS[name])
        if name in FULL and not options.light:
            scale = {"MODELWRIGHT_SCALE": str(options.scale)}
            full = f"{name}{FULL_NAME}"
            jobs[full] = tallied(full, FULL[name], "-s", **scale)
            jobs[full]["scale"] = options.scale
            words[full] = f"{WORDS[name]}; {options.scale:g} of the full count"
        found |= jobs
        keep(jobs, command, RESULTS / "serving_faults.json", "Faults of serving", words)
    return int(any(figures["failed"] or not figures["held"] for figures in found.values()))


if __name__ == "__main__":
    sys.exit(main())
