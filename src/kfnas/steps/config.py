"""The configuration of a whole run, composed of each package's own, and where it comes from: YAML, overrides, defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BeforeValidator, Field, JsonValue, ValidationInfo, field_validator, model_validator

from kfnas.config import Config, canonical_json, digest_of, load_yaml, parse
from kfnas.controller import RewardConfig, SearchConfig
from kfnas.controller.config import BUFFER_AGENTS, CRITIC_AGENTS
from kfnas.errors import ConfigError
from kfnas.measure import LatencyConfig, TableConfig
from kfnas.steps.oneshot_config import ONE_SHOT, Algorithm, OneShotConfig
from kfnas.tracking import redacted
from kfnas.train import ProxyConfig, RetrainConfig, load_task

Cost = Literal["latency_ms", "mult_adds", "params"]
TRIAL_STEPS = 100
DEFAULT_AGENT = "mnas"
LOCATION_FIELDS = ("store", "tracking", "execution")
NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"


class SpaceConfig(Config):
    """Which space, and what its builder is given beside the architecture (resolution, channels and outputs come from the data)."""

    name: str = Field("mnas_small", description="a name of the entry-point group kfnas.spaces")
    width: float = Field(0.25, gt=0, le=16, description="width multiplier of every network of the search")


class DeviceConfig(Config):
    """Where latency is taken."""

    name: str = Field("local", description="a name of the entry-point group kfnas.devices")
    replay: str | None = Field(None, description="a file that `kfnas records export` wrote: latencies come from it alone, and nothing is measured")


class TrackingConfig(Config):
    """Where runs, metrics and models are tracked. Without `uri`, MLFLOW_TRACKING_URI; without that, sqlite beside a local store."""

    enabled: bool = True
    uri: str | None = Field(None, description="tracking server or database, without credentials: these belong in the environment")
    experiment: str = Field("kfnas", min_length=1)


class ExecutionConfig(Config):
    """How the work is cut up; it changes no result, and may differ between a run and its resumption."""

    shards: int = Field(2, ge=1, le=256, description="training tasks a round; on kfp.local two run at a time")
    workers: int = Field(1, ge=1, le=64, description="processes that train children within one task")
    rounds_per_run: int = Field(3, ge=1, le=20, description="rounds unrolled in one pipeline run")
    lease_seconds: float = Field(120.0, ge=5, description="a run that has not renewed its hold on the search for so long counts as dead")


class PoolConfig(Config):
    """The pool of trained blocks that children are initialised from, and that they are put into."""

    name: str = Field(pattern=NAME, description="the pool's; searches that name one pool of one store share it")
    store: str | None = Field(None, description="folder, or s3://bucket/prefix; none: the run's own store")
    floor: float = Field(0.6, ge=0, le=1, description="cosine similarity of two blocks' one-hot decisions from which on a match counts")
    min_match: float = Field(0.99, gt=0, le=1, description="share of a batch's blocks that must match before children start from the pool")
    read: bool = Field(True, description="whether children may start from the pool; off: it is only filled")
    push: bool = Field(True, description="whether the blocks of randomly initialised children are put into the pool")
    version: int | None = Field(None, ge=1, description="read this version of the pool throughout, whatever is added meanwhile; none: the newest of each round")
    fixed_parts: bool = Field(True, description="whether stem and head are stored and initialised too; the classifier never is")
    task: str | None = Field(None, max_length=200, description="label of this search's task on what it puts into the pool; none: the task's name and source")
    pin_hours: float = Field(168.0, gt=0, le=876_000, description="how long the version in use stays in the pool after the search was last seen to live")


class PriorConfig(Config):
    """An earlier search in the same space whose critic, and what it was trained on, this one starts from."""

    search: str = Field(pattern=NAME, description="the earlier search's name")
    store: str | None = Field(None, description="folder, or s3://bucket/prefix; none: the run's own store")
    task: str | None = Field(None, description="label of the earlier search's task; none: its task's name and source")


def _as_prior(value: Any) -> Any:
    return {"search": value} if isinstance(value, str) else value


class RunConfig(Config):
    """One search: data, space, target, budget and recipe. `kfnas config schema` prints it."""

    name: str = Field(pattern=NAME, description="the search's id: its folder in the store, its parent run and its registered model")
    seed: int = Field(0, ge=0, lt=2**31)
    task: dict[str, JsonValue] = Field({"name": "classification"}, description="`name` of a task, and that task's own configuration")
    space: SpaceConfig = SpaceConfig()
    algorithm: Algorithm | None = Field(
        None, description="how to search. pcnas, betanas and oneshot search on one supernet and read `oneshot`; any other name is short for search.agent"
    )
    search: SearchConfig = Field(default_factory=SearchConfig)
    rounds: int = Field(10, ge=1, le=100_000, description="batches of the search; a search on one supernet has as many rounds as its algorithm needs")
    oneshot: OneShotConfig | None = Field(None, description="of a search on one supernet; none: the papers' values")
    cost: Cost = Field("latency_ms", description="what reward.target limits")
    skip_over: float = Field(1.5, ge=1, description="with the hard reward, a child costlier than this times the target is not trained at all")
    pool: PoolConfig | None = Field(None, description="architecture knowledge pool; none: every child starts from random weights")
    prior: Annotated[PriorConfig | None, BeforeValidator(_as_prior)] = Field(
        None, description="an earlier search in the same space, by name or as {search, store}, whose critic this one starts from"
    )
    proxy: ProxyConfig = Field(default_factory=lambda: ProxyConfig(epochs=1))
    retrain: RetrainConfig = Field(default_factory=lambda: RetrainConfig(epochs=20))
    top_k: int = Field(3, ge=1, le=50, description="architectures trained from scratch at the end")
    comparisons: bool = Field(True, description="whether the space's own network and a random one are trained from scratch too, to compare with")
    device: DeviceConfig = DeviceConfig()
    latency: LatencyConfig = Field(default_factory=LatencyConfig)
    table: TableConfig | None = Field(
        None,
        description="foretell candidates' latency by a table of operators, taken once for the space and the device (`kfnas table`); none: measure each. "
        "What is trained from scratch at the end is measured whole in any case",
    )
    store: str = Field("runs", description="folder, or s3://bucket/prefix (endpoint and credentials from the environment)")
    tracking: TrackingConfig = TrackingConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="before")
    @classmethod
    def _an_agent_is_an_algorithm_too(cls, value: Any) -> Any:
        """`algorithm: fnas` is `search: {agent: fnas}`: it is folded into it, so that the two are one configuration with one digest."""
        if not isinstance(value, dict) or value.get("algorithm") in (None, *ONE_SHOT) or value["algorithm"] not in get_args(Algorithm):
            return value
        search = value.get("search", {})
        if not isinstance(search, dict):
            return value
        if search.get("agent", value["algorithm"]) != value["algorithm"]:
            raise ValueError(f"algorithm is {value['algorithm']} and search.agent {search['agent']}: give one of the two")
        return {**value, "algorithm": None, "search": {**search, "agent": value["algorithm"]}}

    @model_validator(mode="after")
    def _one_shot_searches_have_no_children(self) -> RunConfig:
        if self.algorithm is None:
            if self.oneshot is not None:
                raise ValueError(f"oneshot: is read by algorithm {', '.join(ONE_SHOT)} only; set `algorithm`, or remove it")
            return self
        if self.shared.retrained_as.auto_augment is not None and not self.retrain.augment:
            raise ValueError("oneshot.retrained_as.auto_augment: retrain.augment is off, so no image would be augmented; turn it on, or remove the policy")
        for name in ("pool", "prior"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: algorithm {self.algorithm} trains no children that could start from it; remove it")
        if self.search.agent != DEFAULT_AGENT:
            raise ValueError(f"search.agent: algorithm {self.algorithm} asks no agent; remove it")
        return self

    @model_validator(mode="after")
    def _named_task(self) -> RunConfig:
        if not isinstance(self.task.get("name"), str):
            raise ValueError("task: needs `name`, such as classification")
        return self

    @field_validator("prior")
    @classmethod
    def _prior_has_a_critic_to_go_to(cls, prior: PriorConfig | None, info: ValidationInfo) -> PriorConfig | None:
        search = info.data.get("search")
        if prior is not None and search is not None and search.agent not in CRITIC_AGENTS:
            raise ValueError(f"agent {search.agent} has no critic that could start from it; set search.agent to {' or '.join(CRITIC_AGENTS)}")
        return prior

    @field_validator("table")
    @classmethod
    def _table_of_latency(cls, table: TableConfig | None, info: ValidationInfo) -> TableConfig | None:
        cost = info.data.get("cost")
        if table is not None and cost != "latency_ms":
            raise ValueError(f"it foretells latency, and cost is {cost}; drop table, or set cost to latency_ms")
        return table

    @property
    def method(self) -> str:
        """What searches, in a word: the algorithm of a search on one supernet, else the agent."""
        return self.algorithm or self.search.agent

    @property
    def shared(self) -> OneShotConfig:
        """Configuration of a search on one supernet."""
        return self.oneshot or OneShotConfig()

    @property
    def text(self) -> str:
        """Canonical JSON: what steps are given."""
        return canonical_json(self)

    @property
    def task_label(self) -> str:
        """What knowledge that leaves the search says of its task: the task's name, and the last part of its source's."""
        source = self.task.get("source")
        return str(self.task["name"]) + (f" {Path(str(source)).name}" if source else "")

    @property
    def digest(self) -> str:
        """Digest of what determines the result: all but where state is kept, where it is tracked and how work is cut up.

        A pool, a prior or a table that is not used leaves no trace in it. Of a search on one supernet count the algorithm and what it reads.
        """
        value = self.model_dump(mode="json", exclude={*LOCATION_FIELDS, "algorithm", "oneshot"})
        if self.table is None:
            del value["table"]
        if self.algorithm is not None:
            value |= {"algorithm": self.algorithm, "oneshot": self.shared.used_by(self.algorithm)}
            for name in ("rounds", "proxy", "skip_over"):
                value.pop(name)
        for name in ("pool", "prior"):
            used = value.pop(name)
            if used is not None:
                value[name] = {field: item for field, item in used.items() if field not in ("store", "pin_hours") and (field, item) != ("read", True)}
        # Searches that began before there was a choice went by the priority.
        experience = value["search"].get("experience", {})
        if experience.get("correction") == "priority":
            del experience["correction"]
        return digest_of(value)


def run_config(text: str) -> RunConfig:
    """The configuration that a step was given as canonical JSON."""
    return parse(RunConfig, yaml.safe_load(text))


def load_run_config(path: Path, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read a YAML configuration, apply `key.path=value` overrides (values are YAML), and check everything that can be checked without data.

    A relative `store` is taken from the current folder.

    Raises:
        ConfigError: one line a wrong field.
    """
    value = load_yaml(path)
    for override in overrides:
        apply_override(value, override)
    return complete(parse(RunConfig, value, source=str(path)), source=str(path))


def complete(config: RunConfig, *, source: str = "configuration") -> RunConfig:
    """Fill in the task's own defaults, make a local store's path absolute, and let an experience buffer anneal over the rounds there are.

    Raises:
        ConfigError: the task refuses its configuration, or the tracking address holds a password.
        PluginError: the task is not installed.
    """
    _, settings = task_of(config, source=source)
    uri = config.tracking.uri
    if uri is not None and (shown := redacted(uri)) != uri:
        raise ConfigError(f"{source}: tracking.uri: {shown} holds credentials, and a configuration is shown to many; set it as MLFLOW_TRACKING_URI instead")
    update: dict[str, Any] = {"task": {"name": config.task["name"], **settings.model_dump(mode="json")}, "store": absolute(config.store)}
    for name in ("pool", "prior"):
        used = getattr(config, name)
        if used is not None and used.store is not None:
            update[name] = used.model_copy(update={"store": absolute(used.store)})
    if config.search.agent in BUFFER_AGENTS and config.search.horizon is None:
        update["search"] = config.search.model_copy(update={"horizon": config.rounds * config.search.batch_size})
    return config.model_copy(update=update)


def task_of(config: RunConfig, *, source: str = "configuration") -> tuple[Any, Config]:
    """The task (kfnas.train.Task) and its own configuration."""
    task = load_task(str(config.task["name"]))
    arguments = {key: value for key, value in config.task.items() if key != "name"}
    return task, parse(task.config_type, arguments, source=f"{source}: task")


def absolute(store: str) -> str:
    """The address of a store; a local folder's in full."""
    if store.startswith("file:///") and not {"?", "#", "%"} & set(store):
        store = store.removeprefix("file://")
    return store if "://" in store else str(Path(store).expanduser().resolve())


def trial_of(config: RunConfig) -> RunConfig:
    """The same run with one random architecture, whatever it costs: the first check of a new data set, through every stage."""
    search = config.search.model_copy(update={"agent": "random", "batch_size": 1, "reward": RewardConfig()})
    update = {
        "name": f"{config.name[:49]}-try-{config.digest[:8]}",
        "search": search,
        "rounds": 1,
        "top_k": 1,
        "comparisons": False,
        "pool": None,
        "prior": None,
        "table": None,
        "algorithm": None,
        "oneshot": None,
        "retrain": config.retrain.model_copy(update={"epochs": None, "steps": min(config.retrain.steps or TRIAL_STEPS, TRIAL_STEPS)}),
        "execution": config.execution.model_copy(update={"shards": 1, "rounds_per_run": 1}),
    }
    return parse(RunConfig, config.model_copy(update=update).model_dump(mode="json"))


def apply_override(value: dict[str, Any], override: str) -> None:
    """Set the field that `key.path=value` names; the value is YAML.

    Raises:
        ConfigError: it is not of that form.
    """
    path, separator, text = override.partition("=")
    if not separator or not re.fullmatch(r"[\w.]+", path):
        raise ConfigError(f"--set {override}: not of the form key.path=value; write for instance --set search.batch_size=8")
    *parents, last = path.split(".")
    for part in parents:
        value = value.setdefault(part, {})
        if not isinstance(value, dict):
            raise ConfigError(f"--set {override}: {part} is not a group of fields; give its value as a whole")
    try:
        value[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not YAML; quote it") from None
