"""Spaces by name, from installed entry points."""

from __future__ import annotations

from kfnas import plugins
from kfnas.errors import PluginError
from kfnas.space.space import Space


def load_space(name: str) -> Space:
    """The space that an installed package provides as entry point `name` of group `kfnas.spaces`: a function without arguments that returns
    a `Space`.

    Raises:
        PluginError: nothing provides the name, or it provides something else.
    """
    space = plugins.resolve(plugins.SPACES, name)()
    if not isinstance(space, Space):
        raise PluginError(f"space {name!r} is made as {type(space).__name__}; its entry point must be a function that returns a kfnas.space.Space")
    return space
