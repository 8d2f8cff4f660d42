"""`kfnas pool`: look after the pools of trained blocks that searches share."""

from __future__ import annotations

import click

from kfnas_pipelines.command_line import command

STORE = click.argument("store", metavar="STORE")
NAME = click.argument("name", metavar="NAME")


@click.group()
def pool() -> None:
    """Look after pools of trained blocks.

    STORE is a folder, file:///folder or s3://bucket/prefix, as in a configuration; NAME is the pool's.
    """


@command(pool)
@STORE
@NAME
def inspect(store: str, name: str) -> None:
    """Say what a pool holds.

    \b
    Example:
        kfnas pool inspect s3://bucket/kfnas shared
    """
    from kfnas.steps.keep_pool import inspect as describe

    click.echo(describe(store, name))


@command(pool)
@STORE
@NAME
@click.option("--quick", is_flag=True, help="Only see that every pack is there; do not read it.")
def verify(store: str, name: str, quick: bool) -> None:
    """Check that every entry of every kept version is whole.

    Reads all of it and compares digests. Exit status 1 says that something is damaged; searches pass it over, and `compact` drops it.

    \b
    Example:
        kfnas pool verify ./kfnas-store shared
    """
    from kfnas.steps.keep_pool import verify as check

    text, whole = check(store, name, deep=not quick)
    click.echo(text)
    if not whole:
        raise click.exceptions.Exit(1)


@command(pool)
@STORE
@NAME
def compact(store: str, name: str) -> None:
    """Gather what many small pushes scattered.

    The pool answers as before. The old packs go with the next prune. Searches may go on meanwhile.

    \b
    Example:
        kfnas pool compact ./kfnas-store shared
    """
    from kfnas.steps.keep_pool import compact as gather

    click.echo(gather(store, name))


@command(pool)
@STORE
@NAME
@click.option("--grace-hours", default=24.0, show_default=True, metavar="HOURS", help="How long a replaced version stays readable without a pin.")
def prune(store: str, name: str, grace_hours: float) -> None:
    """Delete what no kept version needs.

    The current version stays, as do versions that a live search has pinned, and those that an earlier prune first saw replaced less than
    the grace ago. Run it now and then.

    \b
    Examples:
        kfnas pool prune ./kfnas-store shared
        kfnas pool prune ./kfnas-store shared --grace-hours 0
    """
    from kfnas.steps.keep_pool import prune as sweep

    click.echo(sweep(store, name, grace_seconds=grace_hours * 3600))


@command(pool)
@STORE
@NAME
@click.argument("other", metavar="OTHER_STORE")
@click.option("--direction", type=click.Choice(["to", "from", "both"]), default="both", show_default=True, help="Whether OTHER_STORE receives, gives, or both.")
def sync(store: str, name: str, other: str, direction: str) -> None:
    """Bring a pool in two stores together.

    Each is given what it lacks; running it again sends nothing.

    \b
    Examples:
        kfnas pool sync ./kfnas-store shared s3://bucket/kfnas
        kfnas pool sync ./kfnas-store shared s3://bucket/kfnas --direction from
    """
    from kfnas.steps.keep_pool import sync as bring_together

    click.echo(bring_together(store, name, other, direction=direction))
