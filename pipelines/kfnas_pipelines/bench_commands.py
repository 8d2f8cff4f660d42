"""`kfnas bench`: searches compared on objectives with known answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from kfnas_pipelines.command_line import command

if TYPE_CHECKING:
    from kfnas.space import Space
    from kfnas.studies.entrants import Entrant
    from kfnas.studies.objectives import Source
    from kfnas.studies.search_bench import OnProgress

QUIET_SECONDS = 30.0
DONOR_SAMPLES = 300

AGENTS_HELP = "[LABEL=]AGENT[:FIELD=VALUE...], parted by commas; may be given several times."


@click.group()
def bench() -> None:
    """Compare searches on objectives with known answers."""


@command(bench)
@click.option("--objective", metavar="NAME[/ARG...]", help="Function in the folder's tables.py, and its arguments: mnas_imagenet, nb201/cifar100.")
@click.option("--tables", envvar="KFNAS_TABLES", type=click.Path(path_type=Path), metavar="DIR", help="Folder with tables.py; KFNAS_TABLES when not given.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="A table of your own instead: one row a training run.")
@click.option("--target", metavar="COLUMN", help="Column of the score of --csv; higher is better.")
@click.option("--columns", metavar="A,B,...", help="Columns of the choices of --csv, in order; all but --target and --observed when not given.")
@click.option("--observed", metavar="COLUMN", help="Column of --csv that a search sees in place of --target, such as an early epoch's score.")
@click.option("--noise", type=float, default=0.0, metavar="SD", help="Deviation of normal noise added to what a search sees of --csv; 0 when not given.")
@click.option("--agents", "-a", multiple=True, required=True, metavar="AGENTS", help=AGENTS_HELP)
@click.option("--seeds", default=10, show_default=True, metavar="N", help="Searches of each agent.")
@click.option("--first-seed", default=0, show_default=True, metavar="N", help="The first of them.")
@click.option("--samples", default=300, show_default=True, metavar="N", help="Activated samples (trainings) of each search.")
@click.option("--jobs", "-j", default=1, show_default=True, metavar="N", help="Processes, of one thread each; 0: all in this one.")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for results; finished runs in it are kept.")
@click.option("--reference", metavar="LABEL", help="Whose final value is the mark; mnas, or the first, when not given.")
@click.option("--focus", metavar="LABEL", help="Test this one against each other; all pairs when not given.")
@click.option("--checkpoints", metavar="N,N,...", help="Numbers of samples at which they are tested.")
@click.option("--prior-from", metavar="OBJECTIVE[:SAMPLES]", help="Enter agents with a critic once more, after a search of their own on this objective.")
@click.option("--shuffle-donor", is_flag=True, help="And once more after one whose scores belong to other architectures: a misleading donor.")
@click.option("--trust-code", is_flag=True, help="Keep finished runs that another version of kfnas's code made.")
def search(output: Path, seeds: int, first_seed: int, samples: int, jobs: int, trust_code: bool, **options: Any) -> None:
    """Compare search agents on a table, over many seeds.

    A search sees one noisy training run of each architecture and is judged by the true score of the one that looked best. Nothing is trained: an answer is
    looked up in a table, so that hundreds of searches take minutes. Scores in percent (0 to 100, some above 1) reach kfnas's own agents as fractions.

    \b
    Agents: random, evolution, local_search, mnas, mnas+uac, mnas+aeb, fnas; and from outside
        ridge    a linear predictor with Thompson sampling
        tpe      Optuna's TPE (pip install 'kfnas[bench]')
    with fields of their configuration: fnas:preset=paper, wide=fnas:critic.threshold.quantile=0.7, ridge:start=20.
    \b
    Examples:
        kfnas bench search --objective mnas_imagenet --tables tables/ --agents mnas,fnas,ridge,tpe \\
            --seeds 30 --samples 600 --jobs 4 --output bench/imagenet
        kfnas bench search --csv mine.csv --target accuracy --agents random,evolution,fnas --output bench/mine
        kfnas bench search --objective nb201/cifar100 --prior-from nb201/cifar10:300 --shuffle-donor \\
            --agents mnas,fnas --samples 300 --output bench/transfer
    \b
    In the output folder:
        table.md       scores, samples to the reference's final value, paired tests
        figure.png     curves with their 95% bands; figure.svg too
        curves.csv     the curves; results.json all figures
        runs/          one file a finished run: started again, the command makes what is missing
    """
    from kfnas.errors import ConfigError
    from kfnas.studies.bench_summary import judging, summarise
    from kfnas.studies.entrants import parse_entrants
    from kfnas.studies.search_bench import Bench, write_results
    from kfnas.studies.search_bench import run as run_bench

    if seeds < 2 or first_seed < 0:
        raise ConfigError(f"--seeds is {seeds} and --first-seed {first_seed}; give at least 2 seeds, from 0 or more on: intervals are over seeds")
    source = _source(options)
    objective = source()
    entrants = _with_donors(parse_entrants(options["agents"]), options, objective.space)
    plan = Bench(source, entrants, tuple(range(first_seed, first_seed + seeds)), samples)
    rules = judging([item.label for item in entrants], samples, options["reference"], _integers(options["checkpoints"]), options["focus"])
    with _progress() as on_progress:
        runs = run_bench(plan, output, jobs=jobs, trust_code=trust_code, on_progress=on_progress)
    codes = {item.label: item.code() for item in entrants}
    summary = summarise(runs, objective=objective.name, seeds=plan.seeds, samples=samples, rules=rules, codes=codes)
    click.echo(write_results(summary, output))
    click.echo(f"written to {output}: table.md, figure.png, figure.svg, curves.csv, results.json")


def _source(options: dict[str, Any]) -> Source:
    """The objective that the options name: one of a tables.py, or a CSV file.

    Raises:
        ConfigError: none or both are named, or options of the one stand with the other.
    """
    from kfnas.errors import ConfigError
    from kfnas.studies.objectives import CsvSource

    given, path = options["objective"], options["csv_file"]
    if (given is None) == (path is None):
        raise ConfigError("give either --objective NAME with --tables DIR, or --csv FILE with --target COLUMN")
    if path is None:
        strays = [name for name in ("target", "columns", "observed", "noise") if options[name]]
        if strays:
            raise ConfigError(f"--{strays[0]} belongs to --csv, and --objective is given: remove one of them")
        return _table(given, options["tables"])
    if options["target"] is None:
        raise ConfigError(f"--csv {path}: --target is missing; name the column of the score")
    columns = tuple(name.strip() for name in (options["columns"] or "").split(",") if name.strip())
    return CsvSource(path, options["target"], columns, options["observed"], options["noise"])


def _table(name: str, folder: Path | None) -> Source:
    from kfnas.errors import ConfigError
    from kfnas.studies.objectives import TableSource

    if folder is None:
        raise ConfigError(f"objective {name!r}: no folder of tables is known; give --tables DIR, or set KFNAS_TABLES")
    return TableSource(folder.resolve(), name)


def _with_donors(entrants: tuple[Entrant, ...], options: dict[str, Any], space: Space) -> tuple[Entrant, ...]:
    from kfnas.errors import ConfigError
    from kfnas.studies.entrants import Donor, with_donors

    text = options["prior_from"]
    if text is None:
        if options["shuffle_donor"]:
            raise ConfigError("--shuffle-donor needs a donor: give --prior-from OBJECTIVE")
        return entrants
    name, colon, count = text.partition(":")
    if colon and not count.isdecimal():
        raise ConfigError(f"--prior-from {text!r}: {count!r} is no number of samples; write OBJECTIVE:SAMPLES, such as nb201/cifar10:300")
    donor = Donor(_table(name, options["tables"]), int(count) if colon else DONOR_SAMPLES)
    return with_donors(entrants, donor, also_shuffled=options["shuffle_donor"], space=space)


def _integers(text: str | None) -> tuple[int, ...]:
    from kfnas.errors import ConfigError

    try:
        return tuple(int(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"--checkpoints {text!r}: not a list of numbers; write them like 100,200,300") from None


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """A bar where stderr is a terminal, else a line now and then."""
    if sys.stderr.isatty():
        with tqdm(unit="run", file=sys.stderr, dynamic_ncols=True) as bar:

            def move(done: int, total: int) -> None:
                bar.total, bar.n = total, done
                bar.refresh()

            yield move
        return
    said = 0.0

    def say(done: int, total: int) -> None:
        nonlocal said
        if done == total or time.monotonic() - said > QUIET_SECONDS:
            said = time.monotonic()
            click.echo(f"kfnas: {done} of {total} runs done", err=True)

    yield say
