"""What a cluster is asked for beside the wiring: image, resources, environment variables, secrets.

kfp.local enforces none of it, so the local driver compiles with `LOCAL`. Every task leaves here uncached: steps read and move a store that a cache knows
nothing of, and those that could be cached (training a child, measuring a latency) look their result up in that store before they work. Nor does any task
get kfp's own retries, which are ignored inside loops: steps retry what is worth it, and a run that failed is taken up again from the store.

Secrets become environment variables through the `kubernetes` part of kfp's platform configuration, in the form that `kfp.kubernetes.use_secret_as_env` writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic
from kfp.dsl import PipelineTask

from kfnas.config import Config, load_yaml, parse
from kfnas.errors import ConfigError
from kfnas_components.images import STEPS_IMAGE

Role = Literal["control", "measure", "train"]
SECRET_WORDS = ("SECRET", "PASSWORD", "PASSWD", "TOKEN", "ACCESS_KEY", "CREDENTIAL", "PRIVATE_KEY", "API_KEY")


def _no_credential(name: str) -> str:
    if any(word in name.upper() for word in SECRET_WORDS):
        raise ValueError(f"{name} looks like a credential, and many read a compiled pipeline; keep it in a Kubernetes secret, named under `secrets`")
    return name


VariableName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
PlainVariableName = Annotated[VariableName, pydantic.AfterValidator(_no_credential)]


class Resources(Config):
    """What one task is given; requests equal limits, so that its pod is of the class Guaranteed."""

    cpu: int = pydantic.Field(default=1, ge=1, description="whole cores: a measuring pod with part of one would share its core")
    memory: str = pydantic.Field(default="2Gi", pattern=r"^[0-9]+(Ki|Mi|Gi|Ti|K|M|G|T)?$")
    accelerator: str | None = pydantic.Field(default=None, description="resource name, such as nvidia.com/gpu")
    num_accelerators: int = pydantic.Field(default=1, ge=1)


class Secret(Config):
    """Keys of a Kubernetes secret as environment variables of every task, such as the S3 credentials of the store."""

    name: str = pydantic.Field(min_length=1)
    keys: dict[str, VariableName] = pydantic.Field(
        default_factory=lambda: {name: name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}, description="key of the secret: environment variable"
    )
    optional: bool = False


class Environment(Config):
    """Where the tasks of a pipeline run. `kfnas compile --environment FILE` reads one."""

    image: str = pydantic.Field(default=STEPS_IMAGE, min_length=1)
    control: Resources | None = Resources()
    measure: Resources | None = Resources(cpu=2)
    train: Resources | None = Resources(cpu=2, memory="8Gi")
    variables: dict[PlainVariableName, str] = pydantic.Field(default_factory=lambda: {"OMP_NUM_THREADS": "1"})
    secrets: tuple[Secret, ...] = ()

    def place(self, task: PipelineTask, role: Role) -> PipelineTask:
        """Put this environment on one task of a pipeline, uncached."""
        task.set_caching_options(False).set_container_image(self.image)
        resources: Resources | None = getattr(self, role)
        if resources is not None:
            _give(task, resources)
        for name, value in sorted(self.variables.items()):
            task.set_env_variable(name, value)
        if self.secrets:
            task.platform_config["kubernetes"] = {"secretAsEnv": [_secret_as_env(secret) for secret in self.secrets]}
        return task


def load_environment(path: Path | None, image: str | None) -> Environment:
    """An environment from a YAML file, with another image where one is given; without a file the defaults.

    Raises:
        ConfigError: one line a wrong field.
    """
    settings = load_yaml(path) if path is not None else {}
    if image is not None:
        settings["image"] = image
    return parse(Environment, settings, source=str(path or "--image"))


LOCAL = Environment(control=None, measure=None, train=None, variables={})


def check_parallelism(parallelism: int) -> None:
    """Refuse a number of tasks at a time that is negative; 0 is no limit.

    Raises:
        ConfigError: it is.
    """
    if parallelism < 0:
        raise ConfigError(f"parallelism must be 0 (no limit) or more, not {parallelism}")


def _give(task: PipelineTask, resources: Resources) -> None:
    task.set_cpu_request(str(resources.cpu)).set_cpu_limit(str(resources.cpu))
    task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.accelerator is not None:
        task.set_accelerator_type(resources.accelerator).set_accelerator_limit(resources.num_accelerators)


def _secret_as_env(secret: Secret) -> dict[str, object]:
    return {
        "secretName": secret.name,
        "secretNameParameter": {"runtimeValue": {"constant": secret.name}},
        "keyToEnv": [{"secretKey": key, "envVar": variable} for key, variable in sorted(secret.keys.items())],
        "optional": secret.optional,
    }
