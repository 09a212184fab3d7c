"""``restnet-search profile MODEL``."""

from __future__ import annotations

from typing import Annotated

import typer

from restnet_search.cli import options

__all__ = ["profile"]


def profile(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A timm model, or an anchor of the space.")],
    space: options.Space = None,
    trust_code: options.TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Count a model's MACs and parameters by fvcore beside thop, and name the operations that were not counted."""
    from restnet_search.cli.arguments import choose_space
    from restnet_search.cli.console import console, print_json
    from restnet_search.inspection.one_model import anchor_spec, profile_network
    from restnet_search.reporting.commands.model_tables import Profile, render_profile

    chosen, base = choose_space(space, quiet=True)
    spec = anchor_spec(chosen, model)
    count, thop = profile_network(spec, base=base, trust_code=trust_code)
    table = Profile(spec.name, count.macs, count.params, *thop, {one.operator: one.calls for one in count.uncounted})
    if as_json:
        print_json(table.to_json())
    else:
        console().print(render_profile(table))
