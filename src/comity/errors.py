"""The error tree, ordered by who can put it right.

    ComityError
    ├── ConfigError            the operator: a file or an option is wrong        exit 2
    ├── RefusedError           nobody: a guarantee or a policy forbids it        exit 3, HTTP 403
    │   ├── BudgetExhausted      the privacy budget does not cover the plan
    │   ├── CohortTooSmall       fewer sites than the policy demands
    │   ├── PolicyRefused        a site's policy says no
    │   ├── StrategyRefused      this strategy would be wrong under a secure sum
    │   ├── JournalBehind        a journal older than its own signed head
    │   └── NotAMember           not in the signed roster
    ├── ProtocolError          the peer: it sent what the protocol forbids       exit 4, HTTP 400
    │   ├── Malformed            bytes that do not parse
    │   ├── WrongStage           a message out of its turn
    │   ├── Replay               a message seen before
    │   ├── Verification         a signature, hash or share that does not hold
    │   └── VersionMismatch      a version that this one does not speak
    ├── UnavailableError       time: try again later                             exit 5, HTTP 503
    └── DataError              the data owner: a file's content is wrong         exit 6, HTTP 422

A check that matters raises one of these; it never returns a bool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable

DOCS_PAGE = "reference/errors.md"


class ComityError(Exception):
    """Something that a person can put right, told so that they know how.

    Args:
        message: What is wrong, naming the argument, file or field. Stays on this side of a trust
            boundary: it may name paths and figures.
        hint: What to do about it, as one imperative sentence.
        public: A text that is safe to send to another member; the class's own text by default.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    public_default: ClassVar[str] = "the request failed"

    def __init__(self, message: str, *, hint: str = "", public: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.public = public or self.public_default

    @property
    def docs(self) -> str:
        """The documentation page and anchor of this error, relative to the documentation root."""
        return f"{DOCS_PAGE}#{self.code}"


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One wrong field of a configuration.

    Attributes:
        path: Dotted path of the field, for example ``sites.0.name``.
        problem: What is wrong with it.
        hint: What to write instead.
        file: The file it stands in; empty when it came as an argument.
    """

    path: str
    problem: str
    hint: str = ""
    file: str = ""

    def __str__(self) -> str:
        place = f"{self.file}: {self.path}" if self.file else self.path
        return f"{place}: {self.problem}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(ComityError):
    """The operator's files or options are wrong; carries all faults at once."""

    code = "config"
    exit_code = 2
    http_status = 500
    public_default = "this member is not configured correctly"

    def __init__(
        self, message: str, *, hint: str = "", public: str = "", faults: Iterable[Fault] = ()
    ) -> None:
        super().__init__(message, hint=hint, public=public)
        self.faults: tuple[Fault, ...] = tuple(faults)


class RefusedError(ComityError):
    """A guarantee or a policy forbids it: asking again will not help."""

    code = "refused"
    exit_code = 3
    http_status = 403
    public_default = "refused by policy"


class BudgetExhausted(RefusedError):  # noqa: N818 - the design names it so
    """The privacy budget that is left does not cover what was asked."""

    code = "budget-exhausted"
    public_default = "the privacy budget does not cover this"


class CohortTooSmall(RefusedError):  # noqa: N818 - the design names it so
    """Fewer sites than a policy or a guarantee demands."""

    code = "cohort-too-small"
    public_default = "too few sites take part"


class PolicyRefused(RefusedError):  # noqa: N818 - the design names it so
    """A site's own policy says no."""

    code = "policy-refused"


class StrategyRefused(RefusedError):  # noqa: N818 - the design names it so
    """The aggregation strategy would give wrong results behind this protection."""

    code = "strategy-refused"
    public_default = "this strategy cannot run behind the sites' protection"


class JournalBehind(RefusedError):  # noqa: N818 - the design's phrase
    """A journal that is older than a head which it signed: nothing leaves until it is restored."""

    code = "journal-behind"
    public_default = "this site is closed for maintenance"


class NotAMember(RefusedError):  # noqa: N818 - the design names it so
    """The roster that the federation root signed does not name this member."""

    code = "not-a-member"
    public_default = "not a member of this federation"


class ProtocolError(ComityError):
    """The peer sent what the protocol forbids; this side's state is unchanged."""

    code = "protocol"
    exit_code = 4
    http_status = 400
    public_default = "the message does not follow the protocol"


class Malformed(ProtocolError):  # noqa: N818 - the design names it so
    """Bytes that do not parse, or that exceed a limit."""

    code = "malformed"


class WrongStage(ProtocolError):  # noqa: N818 - the design names it so
    """A message that is not expected at this stage."""

    code = "wrong-stage"


class Replay(ProtocolError):  # noqa: N818 - the design names it so
    """A message that was already accepted once."""

    code = "replay"


class Verification(ProtocolError):  # noqa: N818 - the design names it so
    """A signature, hash or share that does not hold."""

    code = "verification"
    public_default = "a signature or hash does not hold"


class VersionMismatch(ProtocolError):  # noqa: N818 - the design names it so
    """A version that this release does not speak."""

    code = "version-mismatch"
    public_default = "the versions do not match"


class UnavailableError(ComityError):
    """Something is not reachable or not writable now: try again later.

    Args:
        message: What is unavailable.
        hint: What to do about it.
        public: Text that is safe across a trust boundary.
        retry_after_s: When trying again makes sense, in seconds.
    """

    code = "unavailable"
    exit_code = 5
    http_status = 503
    public_default = "temporarily unavailable"

    def __init__(
        self, message: str, *, hint: str = "", public: str = "", retry_after_s: float = 5.0
    ) -> None:
        super().__init__(message, hint=hint, public=public)
        self.retry_after_s = retry_after_s


class DataError(ComityError):
    """The content of a data set or document is wrong: its owner can put it right."""

    code = "data"
    exit_code = 6
    http_status = 422
    public_default = "a data set does not fit"
