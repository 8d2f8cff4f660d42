"""Budgets of a recipe, and what may be read without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kfnas.config import parse
from kfnas.errors import ConfigError
from kfnas.train import ProxyConfig, RetrainConfig


def test_exactly_one_budget_is_wanted() -> None:
    for fields in ({}, {"epochs": 1, "steps": 5}):
        with pytest.raises(ConfigError, match="give exactly one of epochs and steps"):
            parse(ProxyConfig, fields)


def test_an_epoch_drops_its_incomplete_batch() -> None:
    assert ProxyConfig(epochs=2, batch_size=64).num_steps(1000) == 30
    assert ProxyConfig(epochs=0.5, batch_size=64).num_steps(1000) == 8
    assert ProxyConfig(epochs=3, batch_size=64).num_steps(50) == 3
    assert RetrainConfig(steps=7).num_steps(1000) == 7


def test_recipes_and_the_classification_task_are_read_without_torch() -> None:
    code = """
import sys
from kfnas.train import ClassificationConfig, ProxyConfig, RetrainConfig, load_task
load_task("classification").config_type(source="digits")
sys.exit("torch" in sys.modules or "torchvision" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
