"""The sealed result of a gate: what may leave a site, and what may not.

`Released` is the promise as a type. Every port that carries something out of a site accepts
nothing else, and only `comity.services.gate` can make one: it claims the seal, once, when it is
imported; whoever else asks for it afterwards is refused. A house test checks that no other module
names the seal, and mypy --strict checks the rest.
"""

from __future__ import annotations

from typing import Generic, NoReturn, TypeVar, final

from comity.errors import RefusedError

T_co = TypeVar("T_co", covariant=True)


@final
class Seal:
    """The right to construct `Released`; there is one, and one owner."""

    __slots__ = ()


_SEAL = Seal()
_claimed_by: list[str] = []


def claim_seal(owner: str) -> Seal:
    """Hands the seal to its first caller, for the life of the process.

    Raises:
        RefusedError: It was claimed before.
    """
    if _claimed_by:
        raise RefusedError(
            f"{owner} may not make releases: the seal belongs to {_claimed_by[0]}",
            hint="let the site's gate release it: services.gate.Gate.release",
        )
    _claimed_by.append(owner)
    return _SEAL


@final
class Released(Generic[T_co]):
    """A value that passed a site's gate: decided, spent, protected and recorded.

    Frozen, not copyable and not picklable: what crosses a process is the value's encoding, made
    by an adapter that was handed the `Released`.

    Attributes:
        value: What leaves.
        sequence: The journal record that stands for it; 0 where a simulation keeps no journal.
    """

    __slots__ = ("_sequence", "_value")
    _value: T_co
    _sequence: int

    def __init__(self, value: T_co, sequence: int, *, seal: Seal) -> None:
        if seal is not _SEAL:
            raise RefusedError("only a site's gate makes a Released")
        object.__setattr__(self, "_value", value)
        object.__setattr__(self, "_sequence", sequence)

    @property
    def value(self) -> T_co:
        """What leaves."""
        return self._value

    @property
    def sequence(self) -> int:
        """The journal record that stands for it."""
        return self._sequence

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Released is frozen: {name} cannot change")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Released is not pickled or copied: encode its value")

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("Released is sealed")

    def __repr__(self) -> str:
        return f"Released(<{type(self._value).__name__}>, sequence={self._sequence})"


@final
class Withheld:
    """A refusal as a first-class result.

    The reason depends on who asked and for what, never on what matched or on a value.

    Attributes:
        policy: The name of the rule that said no, for example ``train.metrics = withhold``.
        reason: A sentence that is safe to show to the asker.
    """

    __slots__ = ("policy", "reason")

    def __init__(self, policy: str, reason: str) -> None:
        self.policy = policy
        self.reason = reason

    def __repr__(self) -> str:
        return f"Withheld({self.policy!r}, {self.reason!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Withheld):
            return NotImplemented
        return (self.policy, self.reason) == (other.policy, other.reason)

    def __hash__(self) -> int:
        return hash((self.policy, self.reason))
