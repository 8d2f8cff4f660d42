"""What every command of `kfnas` has in common, and groups of commands that are loaded when one of them is asked for."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

CONFIG_ARGUMENT = click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG.yaml")
SET_OPTION = click.option(
    "overrides",
    "--set",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace one field, such as search.batch_size=8; the value is YAML. May be given several times.",
)


def command(group: click.Group, name: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """A command with what all of them have: `--debug`, and a docstring kept line by line."""
    debug = click.option("--debug", is_flag=True, expose_value=False, callback=_debug, help="Show the traceback of an error, and what happens inside.")

    def wrap(function: Callable[..., Any]) -> click.Command:
        return group.command(name)(debug(function))

    return wrap


class LazyGroup(click.Group):
    """A group some of whose commands live in modules that are imported when they are first asked for.

    Args:
        lazy: `module:attribute` by the command's name.
    """

    def __init__(self, *arguments: Any, lazy: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found


def _debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().meta["kfnas.debug"] = True
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
