"""Pipelines as IR YAML: what a cluster is given, and what the local driver runs."""

from __future__ import annotations

from pathlib import Path

from kfp import compiler
from kfp.dsl import base_component

from kfnas_pipelines.environment import LOCAL, Environment
from kfnas_pipelines.finish_search import build_finish_search
from kfnas_pipelines.operator_table import build_operator_table
from kfnas_pipelines.search_rounds import build_search_rounds
from kfnas_pipelines.supernet_rounds import build_supernet_rounds
from kfnas_pipelines.sync_pool import build_sync_pool

SEARCH_ROUNDS = "search_rounds.yaml"
POOLED_ROUNDS = "search_rounds_pooled.yaml"
SYNC_POOL = "sync_pool.yaml"
FINISH_SEARCH = "finish_search.yaml"
OPERATOR_TABLE = "operator_table.yaml"
SUPERNET_SEARCHES = {"pcnas": "pcnas_search.yaml", "betanas": "betanas_search.yaml", "oneshot": "oneshot_search.yaml"}


def compile_search_rounds(path: Path, num_rounds: int, parallelism: int = 2, environment: Environment = LOCAL, *, pooled: bool = False) -> Path:
    """Write `search_rounds` of so many rounds to `path`; `pooled` for a configuration with a pool."""
    return _compile(build_search_rounds(num_rounds, parallelism, environment, pooled=pooled), path)


def compile_supernet_rounds(path: Path, algorithm: str, num_rounds: int, parallelism: int = 2, environment: Environment = LOCAL) -> Path:
    """Write `<algorithm>_search` of so many rounds to `path`, for a configuration with that algorithm on one supernet."""
    return _compile(build_supernet_rounds(algorithm, num_rounds, parallelism, environment), path)


def compile_finish_search(path: Path, parallelism: int = 2, environment: Environment = LOCAL) -> Path:
    """Write `finish_search` to `path`."""
    return _compile(build_finish_search(parallelism, environment), path)


def compile_sync_pool(path: Path, environment: Environment = LOCAL) -> Path:
    """Write `sync_pool` to `path`."""
    return _compile(build_sync_pool(environment), path)


def compile_operator_table(path: Path, environment: Environment = LOCAL) -> Path:
    """Write `operator_table` to `path`."""
    return _compile(build_operator_table(environment), path)


def compile_all(directory: Path, environment: Environment, *, num_rounds: int = 3, parallelism: int = 0) -> list[Path]:
    """Write every pipeline into `directory`, which is made if need be; return the files."""
    return [
        compile_search_rounds(directory / SEARCH_ROUNDS, num_rounds, parallelism, environment),
        compile_finish_search(directory / FINISH_SEARCH, parallelism, environment),
        compile_search_rounds(directory / POOLED_ROUNDS, num_rounds, parallelism, environment, pooled=True),
        compile_sync_pool(directory / SYNC_POOL, environment),
        compile_operator_table(directory / OPERATOR_TABLE, environment),
        compile_supernet_rounds(directory / SUPERNET_SEARCHES["pcnas"], "pcnas", num_rounds, parallelism, environment),
        compile_supernet_rounds(directory / SUPERNET_SEARCHES["betanas"], "betanas", num_rounds, parallelism, environment),
        compile_supernet_rounds(directory / SUPERNET_SEARCHES["oneshot"], "oneshot", 1, parallelism, environment),
    ]


def _compile(pipeline: base_component.BaseComponent, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(path))
    return path
