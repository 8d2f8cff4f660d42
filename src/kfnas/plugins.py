"""Plug-ins by name: spaces, tasks and devices come from installed entry points.

A package makes its own space known to `kfnas run` with

    [project.entry-points."kfnas.spaces"]
    my_space = "my_package.spaces:my_space"

and names it in a configuration as `space: {name: my_space}`. A state, a pool or an artifact holds such names only, never a module path, so nothing that was
fetched can choose what code is imported.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from kfnas.errors import PluginError

SPACES = "kfnas.spaces"
TASKS = "kfnas.tasks"
DEVICES = "kfnas.devices"


def names(group: str) -> list[str]:
    """Sorted names that installed packages provide in an entry-point group."""
    return sorted({point.name for point in entry_points(group=group)})


def resolve(group: str, name: str) -> Any:
    """The object that an installed package provides under `name`.

    Raises:
        PluginError: nothing provides the name, two packages provide it, or its import fails.
    """
    found = {(point.value, point.dist.name if point.dist else "?"): point for point in entry_points(group=group, name=name)}
    kind = group.removeprefix("kfnas.").removesuffix("s")
    if not found:
        raise PluginError(f"{kind} {name!r} is not installed; known are {', '.join(names(group)) or 'none'}: install the package that has it, or mend the name")
    if len(found) > 1:
        packages = ", ".join(sorted(dist for _, dist in found))
        raise PluginError(f"{kind} {name!r} is provided by several packages ({packages}); uninstall all but one")
    point = next(iter(found.values()))
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{kind} {name!r} ({point.value}) cannot be imported: {error}; mend or reinstall its package") from error
