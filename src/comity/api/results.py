"""What a run gives back: frozen, typed, and readable as it prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comity.errors import ConfigError
from comity.ids import RunId, SiteName
from comity.services.ledger import BudgetState


@dataclass(frozen=True, slots=True)
class SiteReport:
    """What a run took from one site.

    Attributes:
        site: The site.
        released_bytes: Bytes that left it for this run, from its audit chain.
        released_parts: Parts that left it for this run, from its audit chain.
        unprotected_parts: Of these, parts that are neither arrays under a privacy claim nor scalar
            metrics of a trainer that the site trusts: the only ones in which a record could have
            left as it is.
        budget: How the data set's budget stands; None where the policy has none.
    """

    site: SiteName
    released_bytes: int
    released_parts: int
    unprotected_parts: int
    budget: BudgetState | None


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished training run.

    Attributes:
        run: Its id.
        arrays: The model's arrays by name.
        history: Figures of each round that sites let out, by name.
        sites: What left each site.
        dropouts: Messages without a usable reply, by site and error class.
        withheld: Parts that stayed at their sites, by the policy that said so.
        seconds: Wall time.
    """

    run: RunId
    arrays: Mapping[str, NDArray[Any]]
    history: Mapping[str, tuple[float, ...]]
    sites: tuple[SiteReport, ...]
    dropouts: Mapping[SiteName, Mapping[str, int]]
    withheld: Mapping[str, int]
    seconds: float

    def save(self, path: Path | str) -> Path:
        """Writes the arrays as a NumPy ``.npz`` file and returns its path.

        Raises:
            ConfigError: The run gave no arrays.
        """
        if not self.arrays:
            raise ConfigError(
                "the run left no arrays", hint="keep the model in context.state at the end of main"
            )
        target = Path(path)
        arrays: dict[str, Any] = dict(self.arrays)
        np.savez(target, **arrays)
        return target

    def __repr__(self) -> str:
        size = sum(array.size for array in self.arrays.values())
        lines = [f"TrainResult(run {self.run}: {size} parameters in {self.seconds:.1f} s)"]
        lines += [f"  {name}: {values[-1]:.3f}" for name, values in self.history.items() if values]
        for site in self.sites:
            budget = site.budget
            spent = (
                f", epsilon {budget.epsilon_spent:.2f} of {budget.epsilon_total:g} spent"
                if budget
                else ""
            )
            lines.append(f"  {site.site}: {site.released_bytes} bytes left{spent}")
        for name, errors in self.dropouts.items():
            told = ", ".join(
                error if count == 1 else f"{error} ({count} times)"
                for error, count in errors.items()
            )
            lines.append(f"  {name} dropped out: {told}")
        lines += [f"  withheld {count} x {policy}" for policy, count in self.withheld.items()]
        return "\n".join(lines)
