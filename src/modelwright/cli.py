"""The command line: ``modelwright`` (alias ``mw``). Exit codes are in errors.py and --help."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from modelwright import (
    benchmark_commands,
    data_commands,
    design_commands,
    explain_commands,
    export_commands,
    label_commands,
    play_commands,
    serve_commands,
    transcribe_commands,
)
from modelwright.errors import (
    EXIT_MACHINE,
    EXIT_OK,
    EXIT_USAGE,
    CorruptError,
    MachineError,
    ModelwrightError,
    did_you_mean,
)
from modelwright.places import existing_run, known_recipe, shipped
from modelwright.training import signals
from modelwright.version import __version__

EXIT_CODES = """exit codes:
  0 done   1 a check does not hold, or some of many files could not be read   2 wrong input
  3 a damaged file   4 the machine cannot now (disk, port, missing library, busy run)
  75 stopped by a scheduler, saved: start the same command again   130 stopped by Ctrl-C,
  resumable"""

STARTS = """start here:
  modelwright run quickstart                  from raw text to a model that answers
  modelwright ask runs/quickstart "What does `json.dumps` do?"
  modelwright serve runs/quickstart           an OpenAI-compatible server and a chat page
"""


RECIPE_OR_RUN = "a shipped recipe, a YAML file, or a run directory"


class _Parser(argparse.ArgumentParser):
    """One line for a mistake, with the nearest right word."""

    def error(self, message: str) -> NoReturn:
        word, _, rest = message.partition("invalid choice: '")[2].partition("'")
        known = [k.strip(" '") for k in rest.partition("(choose from ")[2].rstrip(")").split(",")]
        hint = did_you_mean(word, known) if word else ""
        raise ModelwrightError(f"{message}{hint}; see `{self.prog} --help`")


def _stop_behind(error: BaseException) -> BaseException | None:
    """The stop while whose handling an error arose: a library that closed what was half open."""
    behind = error.__context__
    while behind is not None and not isinstance(behind, KeyboardInterrupt):
        behind = behind.__context__
    return behind


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. A user's mistake is one line, no traceback."""
    try:
        options = _parse(arguments)
        with _terminable() if "terminable" in options else signals.listening():
            code: int = options.work(options)
            signals.check()
        return code
    except ModelwrightError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        return _say("stopped; give the same command again to go on", signals.exit_code(stop))
    except BrokenPipeError:  # the reader of our output (a pager, head) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        if (asked := _stop_behind(error)) is not None:
            return _say("stopped; give the same command again to go on", signals.exit_code(asked))
        place = f"{error.filename}: " if error.filename else ""
        return _say(f"{place}{error.strerror or error}; mend that and try again", EXIT_MACHINE)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        return _say("out of memory; lower train.batch or the model's size", EXIT_USAGE)


def _say(problem: str, code: int) -> int:
    """The one line that matters, on standard error, whatever is in it."""
    line = " ".join(f"modelwright: {problem}".splitlines())
    print(line.encode(errors="backslashreplace").decode(), file=sys.stderr)
    return code


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does: what is finished is kept, and how to go on is said."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options, with key=value overrides allowed before and after the flags."""
    parser = _parser()
    line = sys.argv[1:] if arguments is None else list(arguments)
    if line[:1] == ["help"]:
        line = [*line[1:], "--help"]
    options, rest = parser.parse_known_args(line)
    options.line = line
    if "overrides" in options:
        options.overrides += [word for word in rest if "=" in word and not word.startswith("-")]
        rest = [word for word in rest if word not in options.overrides]
    if rest:
        of = _asked(parser, options.line)
        flag = rest[0].partition("=")[0]
        known = [name for action in of._actions for name in action.option_strings]
        hint = did_you_mean(flag, known) if flag.startswith("-") else ""
        of.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    return options


def _asked(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command that a line names, such as that of ``data clean``."""
    for word in words:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                parser = action.choices[word]
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="modelwright",
        description="Develop and fine-tune a model from zero: one recipe, one run directory.",
        epilog=STARTS + "\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"modelwright {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_stages(commands)
    _add_studies(commands)
    _add_use(commands)
    design_commands.add_command(commands)
    data_commands.add_data(commands)
    label_commands.add_command(commands)
    export_commands.add_command(commands)
    explain_commands.add_command(commands)
    transcribe_commands.add_command(commands)
    benchmark_commands.add_command(commands)
    play_commands.add_command(commands)
    return parser


def _add_stages(commands: argparse._SubParsersAction[_Parser]) -> None:
    """The commands that work on one run of a recipe."""
    for name, text in (
        ("run", "all stages of a recipe, or go on with a run"),
        ("prepare", "collect, clean, split and encode the data"),
        ("train", "prepare and train"),
        ("tune", "prepare, train and fine-tune"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("recipe", type=known_recipe, help=RECIPE_OR_RUN)
        command.add_argument(
            "overrides", nargs="*", default=[], metavar="key=value", help="train.steps=200"
        )
        command.add_argument("--out", type=Path, help="the run directory (default runs/NAME)")
        command.add_argument(
            "--allow-change",
            action="append",
            default=[],
            metavar="FIELD",
            help="go on although this has changed: data, torch, seed, train.batch, ...",
        )
        command.add_argument(
            "--profile", type=int, metavar="STEPS", help="trace some steps and name their costs"
        )
        command.add_argument(
            "--launch", metavar="LINE", help='many processes: "torchrun --nproc-per-node 4"'
        )
        command.set_defaults(work=_run, verb=name)

    told = "a recipe with every value and its reason"
    names = f"shipped recipes: {', '.join(shipped())}"
    show = commands.add_parser("show", help=told, description=told, epilog=names)
    show.add_argument("recipe", type=known_recipe, help=RECIPE_OR_RUN)
    show.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    show.set_defaults(work=_show)

    rates = commands.add_parser("rates", help="try learning rates, and suggest one")
    rates.add_argument("recipe", type=known_recipe, help=RECIPE_OR_RUN)
    rates.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="train.optimizer=lion"
    )
    rates.add_argument("--stage", choices=("train", "tune"), default="train")
    rates.add_argument("--out", type=Path, help="the run directory (default runs/NAME)")
    rates.set_defaults(work=_rates)


def _add_studies(commands: argparse._SubParsersAction[_Parser]) -> None:
    """The commands that try a recipe in many ways: folds, values, other machines."""
    crossval = commands.add_parser("crossval", help="train a recipe once a fold: mean and spread")
    search = commands.add_parser("search", help="look for better values of a recipe's keys")
    for command, made in ((crossval, "NAME-cv"), (search, "NAME-search")):
        command.add_argument(
            "recipe", type=known_recipe, help=f"a recipe, or the folder runs/{made} to go on with"
        )
        command.add_argument(
            "overrides", nargs="*", default=[], metavar="key=value", help="train.steps=200"
        )
        command.add_argument("--jobs", type=int, default=1, help="runs at once, if memory allows")
        command.add_argument("--out", type=Path, help=f"the folder (default runs/{made})")
    crossval.add_argument("--folds", type=int, help="how many (default 5)")
    crossval.add_argument("--by", help="row, group or time (default: as the recipe's split)")
    crossval.set_defaults(work=_crossval)
    search.add_argument("--space", type=Path, help="a YAML file of keys and their ranges")
    search.add_argument("--trials", type=int, help="how many in all (default 30)")
    search.add_argument("--storage", help="URL of a shared database (or MODELWRIGHT_STORAGE)")
    search.add_argument("--sampler", help="tpe or random (default tpe)")
    search.add_argument("--pruner", help="hyperband, median or none (default hyperband)")
    search.add_argument("--metric", help="loss, bits_per_byte or accuracy of the validation part")
    search.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    search.set_defaults(work=_search)

    plan = commands.add_parser("plan", help="forecast time, memory and cost of a recipe elsewhere")
    plan.add_argument("recipe", type=known_recipe, help=RECIPE_OR_RUN)
    plan.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="model.parameters=1B"
    )
    plan.add_argument("--on", required=True, metavar="DEVICES", help="such as 8xH100")
    plan.add_argument("--price", type=float, help="of one device for an hour, such as 2.5")
    plan.set_defaults(work=_plan)


def _add_use(commands: argparse._SubParsersAction[_Parser]) -> None:
    """The commands for what has been trained."""
    evaluate = commands.add_parser("evaluate", help="measure a run beside trivial baselines")
    evaluate.add_argument("run", type=existing_run)
    evaluate.add_argument("--on", metavar="FILE", help="rows of your own, not its test part")
    evaluate.add_argument(
        "--by", action="append", default=[], metavar="COLUMN", help="of FILE: means by it as well"
    )
    words = "options of its task while it is measured, such as recogniser=runs/ears"
    evaluate.add_argument("options", nargs="*", default=[], metavar="key=value", help=words)
    evaluate.set_defaults(work=_evaluate)

    ask = commands.add_parser("ask", help="one answer, or a conversation when no question is given")
    ask.add_argument("run", type=existing_run)
    ask.add_argument("question", nargs="?", help="read from the terminal when left out")
    ask.add_argument("--stage", choices=("train", "tune"), help="which model (default: the last)")
    ask.add_argument("--max-tokens", type=int, default=128)
    ask.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--beams", type=int, default=1, help="search for likelier answers, such as 4")
    ask.add_argument("--out", type=Path, help="where to write a picture, of models that make some")
    ask.add_argument(
        "--timestamps",
        nargs="?",
        const="words",
        choices=("words", "segments", "srt", "vtt"),
        help="when the words of a recording are said, or its segments, as lines or as subtitles",
    )
    export_commands.add_weights(ask)
    ask.set_defaults(work=_ask)

    serve_commands.add_serve(commands)
    serve_commands.add_deploy(commands)
    serve_commands.add_bench_serve(commands)
    serve_commands.add_new_key(commands)

    runs = commands.add_parser("runs", help="list runs, or compare some")
    runs.add_argument("runs", nargs="*", type=Path, help="two or more to compare")
    runs.add_argument("--root", type=Path, default=Path("runs"))
    runs.set_defaults(work=_runs)

    check = commands.add_parser("check", help="is this machine ready; or are a run's files sound")
    check.add_argument(
        "run", nargs="?", type=existing_run, help="verify every checkpoint of this run"
    )
    check.set_defaults(work=_check)

    trust = commands.add_parser("trust", help="allow code that came with a run, once you read it")
    trust.add_argument("files", nargs="+", type=Path, metavar="FILE", help="read it first")
    trust.set_defaults(work=_trust)

    version = commands.add_parser("version", help="which modelwright this is")
    version.set_defaults(work=_version)


# Imports are inside the commands: neither `modelwright --help` nor a mistyped name waits for torch.


def _run(options: argparse.Namespace) -> int:
    from modelwright import api  # noqa: PLC0415
    from modelwright.pipeline.launch import launch  # noqa: PLC0415
    from modelwright.training.observe.writers import require  # noqa: PLC0415

    if options.launch is not None:
        launch(options.launch, _without_launch(options.line), print)

    run = api.open_run(
        options.recipe, *options.overrides, out=options.out, accepted=options.allow_change
    )
    if options.profile is not None:  # a look at a run, no part of its recipe
        run.recipe = run.recipe.profiled(options.profile)
    if options.verb != "prepare":
        require(run.recipe.watch.writers)
    api.say(f"run: {run.path}")
    verbs = {"run": api.run, "prepare": api.prepare, "train": api.train, "tune": api.tune}
    verbs[options.verb](run)
    if options.verb == "run" and run.recipe.ask and os.environ.get("RANK", "0") == "0":
        print(f"\n> {run.recipe.ask}\n{api.load(run).said(run.recipe.ask)}")
    return EXIT_OK


def _without_launch(arguments: Sequence[str]) -> list[str]:
    """The same command line for the processes that are started."""
    kept = list(arguments)
    for i, word in enumerate(kept):
        if word == "--launch":
            return kept[:i] + kept[i + 2 :]
        if word.startswith("--launch="):
            return kept[:i] + kept[i + 1 :]
    return kept


def _show(options: argparse.Namespace) -> int:
    from modelwright import terminal  # noqa: PLC0415

    terminal.show(options.recipe, options.overrides)
    return EXIT_OK


def _rates(options: argparse.Namespace) -> int:
    from modelwright import api  # noqa: PLC0415
    from modelwright.training.range_test import table  # noqa: PLC0415

    found = api.rates(options.recipe, *options.overrides, stage=options.stage, out=options.out)
    print(table(found))
    print(*(f"{options.stage}.{key}={rate:.2g}" for key, rate in found.keys.items()))
    return EXIT_OK


def _crossval(options: argparse.Namespace) -> int:
    from modelwright import api  # noqa: PLC0415
    from modelwright.pipeline.crossval import table_lines  # noqa: PLC0415

    chosen = {"folds": options.folds, "by": options.by, "jobs": options.jobs, "out": options.out}
    print("\n".join(table_lines(api.crossval(options.recipe, *options.overrides, **chosen))))
    return EXIT_OK


def _search(options: argparse.Namespace) -> int:
    from modelwright import api  # noqa: PLC0415
    from modelwright.pipeline.search import table_lines  # noqa: PLC0415

    names = ("space", "trials", "storage", "sampler", "pruner", "metric", "jobs", "out", "worker")
    chosen = {name: getattr(options, name) for name in names}
    result = api.search(options.recipe, *options.overrides, **chosen)
    if not options.worker:
        print("\n".join(table_lines(result)))
    return EXIT_OK


def _plan(options: argparse.Namespace) -> int:
    from modelwright import api  # noqa: PLC0415
    from modelwright.pipeline.elsewhere import forecast_lines  # noqa: PLC0415

    read = api.planned(options.recipe, options.overrides)
    print("\n".join(forecast_lines(read, options.on, options.price)))
    return EXIT_OK


def _evaluate(options: argparse.Namespace) -> int:
    from modelwright import api, pipeline, recipe  # noqa: PLC0415
    from modelwright.pipeline.graded import lines  # noqa: PLC0415

    if options.by and not options.on:
        raise ModelwrightError("--by: is for a file given with --on; else set evaluate.slices")
    assigned = recipe.assigned(options.options)
    result = api.evaluate(options.run, options.on, by=options.by, **assigned)
    for line in (*pipeline.summary_lines(result), *(lines(result) if options.on else ())):
        print(line)
    return EXIT_OK


def _ask(options: argparse.Namespace) -> int:
    from modelwright import api, terminal  # noqa: PLC0415

    model = api.load(options.run, options.stage, weights=options.weights)
    params = {
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "seed": options.seed,
        "beams": options.beams,
    }
    if options.out is not None and (options.question is None or not model.suffix):
        raise ModelwrightError(
            "--out: is for one question to a model whose answers are files; leave it out"
        )
    if options.timestamps:
        print(terminal.timed(model, options.question, options.timestamps))
    elif options.question is not None and model.suffix:
        print(model.make(options.question, seed=options.seed, out=options.out))
    elif options.question is not None:
        print(model.said(options.question, **params))
    else:
        terminal.converse(model, params)
    return EXIT_OK


def _trust(options: argparse.Namespace) -> int:
    from modelwright import extensions  # noqa: PLC0415

    for path in options.files:
        print(f"{path}: may run as {extensions.short(extensions.trust(path))}")
    return EXIT_OK


def _version(options: argparse.Namespace) -> int:  # noqa: ARG001 - it has none
    print(f"modelwright {__version__}")
    return EXIT_OK


def _in_pairs(paths: Sequence[Path]) -> None:
    """Of two runs that were asked the same, whether one is better than chance would have it."""
    if len(paths) != 2 or not all((path / "graded").is_dir() for path in paths):
        return
    from modelwright.pipeline import paired  # noqa: PLC0415
    from modelwright.runs import Run  # noqa: PLC0415

    one, other = (Run.open(path) for path in paths)
    try:
        found = paired.compare(one, other)
    except (CorruptError, MachineError):
        raise
    except ModelwrightError as error:  # runs of different questions can be compared as above
        print(f"not compared question by question: {error}")
    else:
        print("\n".join(paired.lines(found, one, other)))


def _runs(options: argparse.Namespace) -> int:
    from modelwright import runs_terminal  # noqa: PLC0415

    if options.runs:
        runs_terminal.compare(options.runs)
        _in_pairs(options.runs)
    else:
        runs_terminal.list_runs(options.root)
    return EXIT_OK


def _check(options: argparse.Namespace) -> int:
    from modelwright import terminal  # noqa: PLC0415

    return terminal.check_run(options.run) if options.run else terminal.check_machine()
