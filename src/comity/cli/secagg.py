"""`comity secagg`: what a secure sum promises and costs, before any runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from comity.cli.terminal import console, json_option, print_json, print_wrapped

if TYPE_CHECKING:
    from comity.services.sum_plan import Outlook


@click.group()
def command() -> None:
    """Say what a secure sum promises and costs.

    \b
    Example:
      comity secagg plan --sites 16
    """  # noqa: D301 - click reads \b as "keep these lines"


@command.command()
@click.option("--sites", type=click.IntRange(1, 1024), required=True, help="Sites of a round.")
@click.option(
    "--parameters",
    type=click.IntRange(0),
    default=1_000_000,
    show_default=True,
    help="Numbers of the model.",
)
@click.option(
    "--ring",
    type=click.Choice(["16", "32"]),
    default="32",
    show_default=True,
    help="Bits of a masked number.",
)
@click.option(
    "--colluders",
    type=click.IntRange(0),
    help="Sites that may collude with the coordinator; a quarter of the others by default.",
)
@click.option(
    "--honest",
    type=click.IntRange(2),
    help="The fewest honest sites in anything that "
    "can be learned; 2 up to six sites, then 3, by default.",
)
@click.option("--strict", is_flag=True, help="Every site must answer: no drop-out is tolerated.")
@click.option(
    "--site-policy",
    "policy",
    type=click.Path(path_type=Path),
    help="A site file: plan by what that site demands.",
)
@json_option
def plan(**options: Any) -> None:  # noqa: ANN401 - click passes each option by its name
    """Say who must answer, who may drop out, and what a round costs.

    \b
    Example:
      comity secagg plan --sites 16
      comity secagg plan --sites 4 --parameters 60 --json
    """  # noqa: D301 - click reads \b as "keep these lines"
    from comity.config.site import load_site_file  # noqa: PLC0415 - only where it is named
    from comity.core.policy.rule import SumPolicy  # noqa: PLC0415 - NumPy comes with it
    from comity.services.sum_plan import SumSettings, outlook  # noqa: PLC0415 - likewise

    policy, as_json = options["policy"], options["as_json"]
    terms = load_site_file(policy).policy().train.sums if policy else SumPolicy()
    terms = dataclasses.replace(
        terms,
        max_colluders=terms.max_colluders if options["colluders"] is None else options["colluders"],
        min_honest=terms.min_honest if options["honest"] is None else options["honest"],
    )
    settings = SumSettings(int(options["ring"]), terms=terms, strict=options["strict"])
    found = outlook(settings, options["sites"], options["parameters"])
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    out = console()
    out.print(f"[bold]A secure sum over {found.sites} sites[/]")
    for line in told(found):
        print_wrapped(out, line, indent=2)


@command.command()
@click.option("--sites", type=click.IntRange(3, 1024), required=True, help="How many sites.")
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("members"),
    show_default=True,
    help="Where the folders are made.",
)
@json_option
def members(sites: int, folder: Path, *, as_json: bool) -> None:
    """Make members' folders for secure sums on stock Flower, under a throw-away root.

    Each folder holds a private key: give each site its own, the coordinator the last. The roster
    is valid for a day; it is meant for simulations and trials.

    \b
    Example:
      comity secagg members --sites 4 --out members
    """  # noqa: D301 - click reads \b as "keep these lines"
    from comity.bootstrap.members import write_members  # noqa: PLC0415 - flwr takes 0.4 s

    made = write_members(folder, sites)
    if as_json:
        print_json({"folders": [str(place) for place in made]})
        return
    for place in made:
        click.echo(place)


def told(found: Outlook) -> list[str]:
    """The outlook in sentences that a site administrator can judge."""
    lost = found.tolerated
    may = (
        "No site may drop out of a round."
        if not lost
        else (f"{lost} of them may drop out of a round, before their upload or after it.")
    )
    honest = f"all that can be learned is still a sum over at least {found.honest} honest sites."
    size, plain = _size(found.upload_bytes), _size(found.plain_bytes)
    left = f"{found.margin_bits:.1f} bits are left for the largest value of each tensor."
    learned = "The coordinator learns the sum, who took part, and when;"
    return [
        f"{found.threshold} sites must answer before a sum opens. {may}",
        f"{_liars(found.colluders)}, {honest}",
        f"With the same terms, no round runs with fewer than {found.smallest} of these sites.",
        f"A site sends {size} a round; in the clear it would be {plain}.",
        f"No sum can overflow: a plan in which one could is refused. {left}",
        f"{learned} no single update, example count or metric.",
        "What the sum itself tells is not hidden: that takes noise (differential privacy).",
    ]


def _liars(colluders: int) -> str:
    if not colluders:
        return "If the coordinator lies differently to every site"
    sites = "one site" if colluders == 1 else f"{colluders} sites"
    return f"If the coordinator and {sites} lie together, differently to every other site"


def _size(size_bytes: int) -> str:
    mega = 1_000_000
    if size_bytes >= mega:
        return f"{size_bytes / mega:.2f} MB"
    return f"{size_bytes / 1000:.1f} kB"
