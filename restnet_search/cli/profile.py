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
    """Count a model's MACs and parameters by fvcore beside torch and thop, and name operations that are not counted."""
    from restnet_search.cli.arguments import choose_space
    from restnet_search.cli.console import console, print_json
    from restnet_search.inspection.one_model import anchor_spec, profile_network
    from restnet_search.reporting.commands.model_tables import Profile, render_profile

    chosen, base = choose_space(space, quiet=True)
    spec = anchor_spec(chosen, model)
    costs = profile_network(spec, base=base, trust_code=trust_code)
    ours = costs.counts.ours
    table = Profile(
        spec.name,
        ours.macs,
        ours.params,
        *costs.thop,
        uncounted=ours.uncounted,
        torch_macs=costs.counts.torch,
        why=costs.counts.why,
        exported_macs=costs.exported_macs,
        trained_macs=costs.as_trained.macs if costs.as_trained else None,
        kept_branches=costs.kept_branches,
    )
    if as_json:
        print_json(table.to_json())
    else:
        console().print(render_profile(table))
