"""How well operator latency tables foretell whole networks on this machine: each skeleton, 1 and 2 threads, 30 held-out networks.

    python benchmarks/operator_table.py --out results/operator_table                  all of them
    python benchmarks/operator_table.py --spaces pcnas_s_28 betanas_28 --threads 1    some

Wants quiet cores: as many free ones as threads, and one more. Every measurement is kept under --out as it is made: killed, the script goes on where it was
when it is started again. Prints a markdown table; the share of the 3% that is asked for is in the column `mean |error|`. A row's tables lie in --out/store,
with every entry and network, so that another correction can be tried on them without measuring again. Two are, in the last columns: entries as they were
measured, without the overhead of a run taken off; and a third term, the values that parts hand to each other, whose reordering a part alone pays for.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kfnas.measure import (
    LatencyConfig,
    LocalDevice,
    NetworkLatency,
    OperatorTable,
    TableConfig,
    TableQuestion,
    Taken,
    next_of,
    plan_table,
    table_of_rounds,
    take,
)
from kfnas.measure.operator_table import errors_of
from kfnas.space import Architecture, LayerSpec, NetworkArguments, NetworkSpec, Space, load_space, parts_of
from kfnas.storage import LocalStore, get_record, put_record

SKELETONS = {
    "pcnas_s_28": NetworkArguments(width=1.0, resolution=28, in_channels=1, num_outputs=10),
    "betanas_28": NetworkArguments(width=1.0, resolution=28, in_channels=1, num_outputs=10),
    "pcnas_l_28": NetworkArguments(width=1.0, resolution=28, in_channels=1, num_outputs=10),
    "pcnas_s": NetworkArguments(width=1.0, resolution=224, in_channels=3, num_outputs=1000),
    "betanas": NetworkArguments(width=1.0, resolution=224, in_channels=3, num_outputs=1000),
    "mnas_small": NetworkArguments(width=0.25, resolution=28, in_channels=1, num_outputs=10),
    "mnas_v2": NetworkArguments(width=1.0, resolution=224, in_channels=3, num_outputs=1000),
    "mnas_v3": NetworkArguments(width=1.0, resolution=224, in_channels=3, num_outputs=1000),
}
RECORD_SIZE = 32
PREDICTORS = ("table", "sum", "mult_adds")


def main() -> None:
    """Take the tables and print their errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=list(SKELETONS), choices=list(SKELETONS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--networks", type=int, default=30, help="held-out networks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=float, help="of every space, in place of its own")
    parser.add_argument("--out", type=Path, default=Path("operator_table_results"))
    given = parser.parse_args()
    settings = TableConfig(rounds=given.rounds, held_out=given.networks, seed=given.seed)
    store = LocalStore(given.out / "store")
    print(
        "| space | pixels | width | threads | operators | unstable | minutes | spread of rounds | networks, ms | offset, ms | scale | ms a million parameters ",
        end="",
    )
    print("| mean abs. error | bias | R2 | Spearman | 95% error | sum alone | mult-adds | raw entries | third term |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for threads in given.threads:
        for name in given.spaces:
            arguments = SKELETONS[name] if given.width is None else SKELETONS[name].model_copy(update={"width": given.width})
            begun = time.monotonic()
            table = taken(store, name, arguments, LatencyConfig(threads=threads), settings)
            print(row(name, table, (time.monotonic() - begun) / 60), flush=True)
    print(f"\n{LocalDevice().fingerprint()}")


def taken(store: LocalStore, name: str, arguments: NetworkArguments, protocol: LatencyConfig, settings: TableConfig) -> OperatorTable:
    """The table of one space, from the store or measured."""
    space, device = load_space(name), LocalDevice()
    question = TableQuestion.of(space, arguments, device.fingerprint(), protocol, settings)
    known = get_record(store, "tables", question.key)
    if known is not None:
        return OperatorTable.model_validate(known)
    plan = plan_table(space, arguments, settings, protocol.batch)
    rounds: list[list[Taken]] = []
    for number in range(settings.rounds):
        earlier: list[Taken] = []
        while (record := get_record(store, "rounds", f"{question.key}.{number}.{len(earlier)}")) is not None:
            earlier.append(Taken.model_validate(record))
        while asked := next_of(plan, earlier, settings.seed, number, RECORD_SIZE):
            measured = take(device, plan, asked, protocol, earlier)
            put_record(store, "rounds", f"{question.key}.{number}.{len(earlier)}", measured.model_dump(mode="json"))
            earlier.append(measured)
            done = sum(len(each.latencies) for each in earlier)
            print(f"{name}, {protocol.threads} threads: round {number + 1} of {settings.rounds}, {done} of {len(plan.digests)}", file=sys.stderr)
        rounds.append(earlier)
    table = table_of_rounds(question, plan, rounds)
    put_record(store, "tables", question.key, table.model_dump(mode="json"))
    return table


def row(name: str, table: OperatorTable, minutes: float) -> str:
    """One line of the markdown table."""
    question = table.question
    errors, alone, counted = (table.errors(predictor) for predictor in PREDICTORS)  # type: ignore[arg-type]
    assert errors is not None and alone is not None and counted is not None
    latencies = sorted(each.latency_ms for each in table.held_out)
    r2, rank = ("-" if value is None else f"{value:.3f}" for value in (errors.r2, errors.spearman))
    return (
        f"| {name} | {question.arguments.resolution} | {question.arguments.width:g} | {question.threads} | {len(table.entries)} | {len(table.unmeasured)} "
        f"| {minutes:.1f} | {table.spread:.1%} | {latencies[0]:.3g} to {latencies[-1]:.3g} | {table.offset_ms:.3g} | {table.scale:.3f} "
        f"| {table.ms_per_million_params:.3g} "
        f"| {errors.mean_absolute:.2%} | {errors.bias:+.2%} | {r2} | {rank} | {errors.error_95:.2%} "
        f"| {alone.mean_absolute:.2%} | {counted.mean_absolute:.2%} | {otherwise(table, load_space(name), num_parts):.2%} "
        f"| {otherwise(table, load_space(name), values_handed_over):.2%} |"
    )


def num_parts(spec: NetworkSpec) -> float:
    """Parts of a network: as often is the overhead in a sum of raw entries."""
    return float(len(parts_of(spec)))


def values_handed_over(spec: NetworkSpec) -> float:
    """Numbers that go into and out of the layers of a network."""
    layers = [part for part in parts_of(spec) if isinstance(part, LayerSpec)]
    return float(sum(layer.in_channels * layer.in_size**2 + layer.out_channels * layer.out_size**2 for layer in layers))


def otherwise(table: OperatorTable, space: Space, count: Callable[[NetworkSpec], float]) -> float:
    """Mean absolute error on the held-out networks of another correction: raw entries for `num_parts`, a third fitted term for any other count."""

    def columns(rows: Sequence[NetworkLatency]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        counts = [count(space.network(Architecture.parse(each.architecture), table.question.arguments)) for each in rows]
        sums, measured = np.array([each.sum_ms for each in rows]), np.array([each.latency_ms for each in rows])
        if count is num_parts:
            return np.stack([np.ones_like(sums), sums + table.overhead_ms * np.array(counts)], axis=1), measured
        return np.stack([np.ones_like(sums), sums, np.array(counts) / 1e6], axis=1), measured

    design, measured = columns(table.fit)
    line = np.linalg.lstsq(design / measured[:, None], np.ones_like(measured), rcond=None)[0]
    held, truth = columns(table.held_out)
    return errors_of(held @ line, truth).mean_absolute


if __name__ == "__main__":
    main()
