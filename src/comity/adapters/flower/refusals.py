"""Runs that cannot come to anything end with the reason, instead of with an untrained model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from comity.adapters.flower.site_engine import Outgoing
from comity.core.policy.rule import category_of
from comity.errors import PolicyRefused, RefusedError, UnavailableError
from comity.ids import SiteName

_TRAIN: Final = "train"
_NEEDED: Final = ("arrays", "metrics")
"""Parts without which no stock strategy can aggregate."""


@dataclass(slots=True)
class Refusals:
    """Who refused what, by exchange, and whether anybody trained.

    The sites of an in-process run are on the caller's own machine, so their gates' own messages
    may be shown here: they name figures and the way out.
    """

    _asked: Counter[int] = field(default_factory=Counter)
    _refused: dict[int, list[tuple[SiteName, RefusedError]]] = field(default_factory=dict)
    _train_failures: Counter[str] = field(default_factory=Counter)
    _trained: int = 0

    def sent(self, exchange: int) -> None:
        """Takes note of one message of an exchange."""
        self._asked[exchange] += 1

    def took(self, exchange: int, kind: str, site: SiteName, out: Outgoing) -> None:
        """Takes note of what became of one message."""
        if out.refused is not None:
            self._refused.setdefault(exchange, []).append((site, out.refused))
        if category_of(kind) == _TRAIN:
            self._trained += not out.failure
            self._train_failures.update([out.failure] if out.failure else [])

    def check(self) -> None:
        """Checks that no exchange was refused by every site that was asked.

        Raises:
            RefusedError: Of the first site's class, with each site's own message.
        """
        for exchange, refused in self._refused.items():
            if len(refused) == self._asked[exchange]:
                raise _together(refused)

    def check_trained(self) -> None:
        """Checks that some site trained, where any was asked to.

        Raises:
            UnavailableError: None did; names the errors by class.
        """
        if self._train_failures and not self._trained:
            seen = ", ".join(f"{name} ({count})" for name, count in self._train_failures.items())
            raise UnavailableError(
                f"nothing was trained: no site gave a usable reply to any train message: {seen}",
                hint="the sites' own output above says why",
            )


def withheld_needed(withheld: Iterable[str]) -> PolicyRefused | None:
    """The refusal that a strategy runs into which must have what sites withhold; else None."""
    rules = [rule for rule in withheld if rule.partition(" ")[0].rpartition(".")[2] in _NEEDED]
    if not rules:
        return None
    kind, _, part = rules[0].partition(" ")[0].rpartition(".")
    return PolicyRefused(
        f"the app's strategy needs in each reply what the sites' policy withholds: "
        f"{', '.join(rules)}",
        hint=f'a site\'s owner may write [train.rules.{kind}] {part} = "plain"; or use a strategy '
        "that needs none, such as that of comity.server_app",
    )


def _together(refused: Iterable[tuple[SiteName, RefusedError]]) -> RefusedError:
    by_message: dict[str, list[SiteName]] = {}
    errors = dict(refused)
    for site, error in sorted(errors.items()):
        by_message.setdefault(error.message, []).append(site)
    told = "; ".join(f"{', '.join(sites)}: {text}" for text, sites in by_message.items())
    first = errors[min(errors)]
    return type(first)(f"every site refused: {told}", hint=first.hint)
