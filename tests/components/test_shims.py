"""Every component is a thin shim: it runs in our image, installs nothing, and hands its step exactly what the step takes."""

import ast
import importlib
import inspect
import pkgutil

import pytest
from kfp.dsl.base_component import BaseComponent

import kfnas_components
from kfnas_components.images import STEPS_IMAGE

NAMES = sorted(module.name for module in pkgutil.iter_modules(kfnas_components.__path__) if module.name != "images")
EXPECTED = {
    "alternate",
    "choose_finalists",
    "compare_study",
    "decide_mixop",
    "evaluate",
    "evolve",
    "export",
    "fidelity_compare",
    "fidelity_plan",
    "fidelity_pool",
    "fidelity_train",
    "finish_round",
    "init_search",
    "latency_table",
    "measure_latency",
    "operator_costs",
    "plan_potentials",
    "prepare_data",
    "pull_pool",
    "push_pool",
    "register",
    "release_search",
    "retrain",
    "sample",
    "score_potentials",
    "sync_pool",
    "train_children",
    "train_supernet",
    "update",
}


def component(name: str) -> BaseComponent:
    return getattr(importlib.import_module(f"kfnas_components.{name}"), name)


def step_call(name: str) -> ast.Call:
    tree = ast.parse(inspect.getsource(importlib.import_module(f"kfnas_components.{name}")))
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "step"]
    return call


def test_the_image_name_lets_kfp_local_run_it():
    assert "python" in STEPS_IMAGE


def test_there_is_one_component_a_step():
    assert set(NAMES) == EXPECTED


@pytest.mark.parametrize("name", NAMES)
def test_a_component_runs_in_our_image_and_installs_nothing(name):
    container = component(name).component_spec.implementation.container
    assert container.image == STEPS_IMAGE
    assert "pip" not in " ".join(map(str, [*container.command, *container.args]))


@pytest.mark.parametrize("name", NAMES)
def test_a_component_stays_short(name):
    source = inspect.getsource(importlib.import_module(f"kfnas_components.{name}"))
    assert len(source.splitlines()) <= 40


@pytest.mark.parametrize("name", NAMES)
def test_a_component_hands_its_step_exactly_what_it_takes(name):
    step = getattr(importlib.import_module(f"kfnas.steps.{name}"), name)
    parameters = list(inspect.signature(step).parameters)
    given = [_handed(argument) for argument in step_call(name).args]
    assert given == parameters


@pytest.mark.parametrize("name", NAMES)
def test_a_component_returns_what_its_step_returns(name):
    step = getattr(importlib.import_module(f"kfnas.steps.{name}"), name)
    returns = inspect.signature(step).return_annotation
    outputs = component(name).component_spec.outputs or {}
    assert ("Output" in outputs) == (returns not in (None, "None"))


def _handed(argument: ast.expr) -> str:
    """The name of what is handed on: `config`, or `state` for Path(state.path), or the first of `run_id or job_id`."""
    if isinstance(argument, ast.BoolOp):
        argument = argument.values[0]
    if isinstance(argument, ast.Call):
        (argument,) = argument.args
    if isinstance(argument, ast.Attribute):
        argument = argument.value
    assert isinstance(argument, ast.Name)
    return argument.id
