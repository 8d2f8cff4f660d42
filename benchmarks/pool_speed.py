"""How fast a pool answers, and how fast it moves bytes, beside plain boto3.

    python benchmarks/pool_speed.py                       all three parts
    python benchmarks/pool_speed.py query --entries 10000
    python benchmarks/pool_speed.py transfer --megabytes 256 --repeats 5
    python benchmarks/pool_speed.py batch --megabytes 256

query: CPU time of architectures of mnas_v2 asked of a pool with that many entries (tiny tensors: the index is what is measured).
transfer: blocks of 50 to 500 KB pushed to and pulled from a SeaweedFS server on loopback, against boto3 putting and getting the same bytes as objects
of 32 MB, one after another, and holding in memory what they got as a pull does; the two take turns, and the ratio is that of the medians.
batch: the blocks that 20 architectures need, fetched from the packs as ranges and as whole packs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import uuid
from collections.abc import Callable

import numpy as np

from kfnas.pool import Pool, PoolEntry, coverage, packs
from kfnas.pool.layout import parts_of
from kfnas.space import NetworkArguments, mnas_v2
from kfnas.storage import MemoryStore, open_store
from kfnas.storage.s3 import make_client
from kfnas.testing.seaweedfs import seaweedfs

ARGUMENTS = NetworkArguments(width=1.0, resolution=224)
WIDTHS = (1.0, 0.5, 0.75, 1.25)
"""Width multipliers of the entries: one alone has too few distinct blocks."""
LARGE = 32_000_000


def timed(action: Callable[[], object]) -> float:
    """Seconds that the action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def cpu_timed(action: Callable[[], object]) -> float:
    """CPU seconds that the action takes: what a busy machine does not change."""
    started = time.process_time()
    action()
    return time.process_time() - started


def quantiles(seconds: list[float]) -> str:
    """Median and 95th percentile in milliseconds."""
    ordered = sorted(1000 * value for value in seconds)
    return f"{statistics.median(ordered):.2f} ms (p95 {ordered[int(0.95 * len(ordered))]:.2f})"


def query(num_entries: int) -> None:
    """Time queries of whole architectures."""
    space, rng = mnas_v2(), np.random.default_rng(0)
    pool = Pool(MemoryStore(), "bench")
    entries: dict[tuple[object, ...], PoolEntry] = {}
    tiny = {"0.w": np.zeros(4, dtype=np.float32)}
    for number in range(num_entries):
        if len(entries) >= num_entries:
            break
        architecture = space.canonical(space.random(rng))
        arguments = ARGUMENTS.model_copy(update={"width": WIDTHS[number % len(WIDTHS)]})
        for part in parts_of(space.network(architecture, arguments), fixed_parts=False):
            block = space.block(part.block)
            tokens = architecture.tokens[block.start : block.stop]
            embedding = space.embed_block(architecture, part.block)
            entry = PoolEntry(part.block, tokens, embedding, tiny, f"{number:064x}", 1, shape=part.shape, operations=part.operations)
            entries.setdefault((part.block, tokens, part.shape), entry)
    listed = list(entries.values())[:num_entries]
    pushing = timed(lambda: pool.push(listed, space=space.digest, iterations=1))
    opening = timed(lambda: Pool(pool.access.store, "bench").at())
    snapshot = Pool(pool.access.store, "bench").at()
    asked = [(each, space.network(each, ARGUMENTS)) for each in (space.random(rng) for _ in range(300))]
    whole = [cpu_timed(lambda each=each: coverage(snapshot, space, [each], floor=0.5)) for each in asked]  # type: ignore[misc]
    alone = []
    for architecture, spec in asked:
        tokens = space.canonical(architecture).tokens
        questions = [(part.block, tokens[6 * part.block : 6 * part.block + 6], part.shape, part.operations) for part in parts_of(spec, fixed_parts=False)]
        alone.append(cpu_timed(lambda questions=questions: [snapshot.query(b, t, shape=s, operations=o) for b, t, s, o in questions]))  # type: ignore[misc]
    print(f"entries {len(snapshot)}; pushed in {pushing:.2f} s, opened in {opening:.2f} s")
    print(f"the seven queries of one architecture: {quantiles(alone)}")
    print(f"the same with canonical form, shapes and similarities: {quantiles(whole)}")


def make_entries(megabytes: float) -> list[PoolEntry]:
    """Blocks of 50 to 500 KB in tensors of the usual sizes, at random."""
    rng, entries, total = np.random.default_rng(1), [], 0
    while total < megabytes * 1e6:
        size = int(rng.integers(50_000, 500_000)) // 4
        cuts = np.sort(rng.integers(1, size, 17))
        arrays = np.split(rng.standard_normal(size, dtype=np.float32), cuts)
        tokens = tuple(int(value) for value in rng.integers(0, 3, 6))
        tensors = {f"{index // 6}.op.{index % 6}": array for index, array in enumerate(arrays)}
        embedding = np.zeros(18, dtype=np.float32)
        embedding[[3 * index + token for index, token in enumerate(tokens)]] = 1
        entries.append(PoolEntry(len(entries) % 7, tokens, embedding, tensors, f"{len(entries):064x}", 1, shape=f"{len(entries):016x}"))
        total += 4 * size
    return entries


def transfer(megabytes: float, repeats: int) -> None:
    """Time pushes and pulls in turn with boto3."""
    entries = make_entries(megabytes)
    with seaweedfs() as server:
        os.environ.update(server.environment)
        client = make_client()
        store = open_store(server.uri("pools"))
        seconds: dict[str, list[float]] = {"push": [], "put": [], "pull": [], "get": []}
        for _ in range(repeats):
            pool = Pool(store, uuid.uuid4().hex)
            seconds["push"].append(timed(lambda pool=pool: pool.push(entries, space="s", iterations=1)))  # type: ignore[misc]
            snapshot = Pool(store, pool.name).at()
            names = {row.pack for row in snapshot.rows}
            objects = [store.get(f"pools/{pool.name}/{name}") for name in sorted(names)]
            matches = [match for row in snapshot.rows if (match := snapshot.query(row.key.block, row.key.tokens, shape=row.key.shape))]
            folder = uuid.uuid4().hex

            def put(objects: list[bytes] = objects, folder: str = folder) -> None:
                for index, data in enumerate(objects):
                    client.put_object(Bucket=server.bucket, Key=f"{folder}/{index}", Body=data)

            def get(count: int = len(objects), folder: str = folder) -> list[bytes]:
                return [client.get_object(Bucket=server.bucket, Key=f"{folder}/{index}")["Body"].read() for index in range(count)]

            seconds["put"].append(timed(put))
            seconds["get"].append(timed(get))
            fetched: list[int] = []
            seconds["pull"].append(timed(lambda: fetched.append(len(snapshot.fetch(matches)))))  # noqa: B023
            assert fetched == [len(entries)]
            size = sum(map(len, objects))
            for key in [*store.list(f"pools/{pool.name}/")]:
                store.delete(key)
            for index in range(len(objects)):
                client.delete_object(Bucket=server.bucket, Key=f"{folder}/{index}")
    print(f"{len(entries)} entries, {size / 1e6:.0f} MB in {len(objects)} packs, {repeats} repeats")
    for ours, plain in (("push", "put"), ("pull", "get")):
        rates = {name: [size / 1e6 / value for value in seconds[name]] for name in (ours, plain)}
        for name, values in rates.items():
            print(f"{name}: {statistics.median(values):.0f} MB/s ({min(values):.0f}-{max(values):.0f})")
        print(f"{ours} / {plain}: {statistics.median(rates[ours]) / statistics.median(rates[plain]):.2f}")


def batch(megabytes: float) -> None:
    """Time what a round fetches, with ranges and with whole packs."""
    entries = make_entries(megabytes)
    rng = np.random.default_rng(2)
    with seaweedfs() as server:
        os.environ.update(server.environment)
        store = open_store(server.uri("pools"))
        pool = Pool(store, "bench")
        pool.push(entries, space="s", iterations=1)
        rows = pool.at().rows
        wanted = [rows[index] for index in rng.choice(len(rows), min(140, len(rows)), replace=False)]
        size = sum(row.length for row in wanted)
        for gap in (0, packs.MERGE_GAP_BYTES, LARGE):
            taken = [timed(lambda gap=gap: list(packs.read_rows(store, pool.access.root, wanted, merge_gap_bytes=gap))) for _ in range(3)]  # type: ignore[misc]
            print(f"{len(wanted)} entries ({size / 1e6:.0f} of {megabytes:.0f} MB), gaps up to {gap / 1e6:.0f} MB fetched along: {min(taken):.2f} s")


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("query", "transfer", "batch"))
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--megabytes", type=float, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.part in (None, "query"):
        query(arguments.entries)
    if arguments.part in (None, "transfer"):
        transfer(arguments.megabytes, arguments.repeats)
    if arguments.part in (None, "batch"):
        batch(arguments.megabytes)


if __name__ == "__main__":
    main()
