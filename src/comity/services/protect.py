"""What the gate itself does to a part before it leaves: checks, clip, noise, redaction."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from comity.core.policy.redact import first_sentences
from comity.core.policy.rule import CollectionPolicy, ReleaseLevel, SiteNoise
from comity.core.privacy.noise import noisy_arrays
from comity.errors import DataError, PolicyRefused
from comity.ports import Arrays, Passage, Rng

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_INTEGERS: Final = 1 << 63
_CLASS_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}")


def checked_finite(value: object, name: str) -> None:
    """Checks that no number in `value` is NaN or infinite.

    Raises:
        DataError: One is; names the part and the array or metric.
    """
    match value:
        case np.ndarray():
            finite = value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
        case float() | np.floating():
            finite = bool(np.isfinite(value))
        case _:
            finite = True
            for key, item in _items(value):
                checked_finite(item, f"{name}.{key}")
    if not finite:
        raise DataError(f"{name} holds a NaN or an infinity", hint="check the training data")


def checked_like(arrays: object, reference: Arrays, name: str) -> Arrays:
    """Checks that `arrays` have the names, shapes and dtypes of what the round started from.

    Names and shapes are chosen by the app: without this they could carry data past the policy.

    Raises:
        DataError: They differ; names the first difference.
    """
    if not isinstance(arrays, Mapping) or list(arrays) != list(reference):
        raise DataError(
            f"{name} does not name the arrays that the round started from",
            hint=f"return {', '.join(list(reference)[:8])}, in this order",
        )
    for key, start in reference.items():
        got: Any = arrays[key]
        if not isinstance(got, np.ndarray) or (got.shape, got.dtype) != (start.shape, start.dtype):
            raise DataError(
                f"{name}.{key} is not an array of {start.dtype} with shape {start.shape}",
                hint="return arrays of the shape and dtype that came in",
            )
    return arrays


def checked_name(name: str) -> None:
    """Checks a name that the app chose and that leaves beside its figures.

    Raises:
        DataError: It is empty, longer than 64 characters, or holds other than letters, digits and
            ``_.-``.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"the name {name[:80]!a} may not leave",
            hint="name records and metrics by 1 to 64 letters, digits and _.-",
        )


def count_metrics(metrics: object) -> int:
    """Checks the names and whole numbers of metrics; how many there are, at least 1.

    Raises:
        DataError: A name may not leave, or a whole number has more than 64 bits.
    """
    count = 0
    for name, value in _items(metrics):
        checked_name(str(name))
        values = value if isinstance(value, list | tuple) else (value,)
        count += len(values)
        for figure in values:
            if isinstance(figure, int) and not -_INTEGERS <= figure < _INTEGERS:
                raise DataError(f"{name} is a whole number of more than 64 bits")
    return max(1, count)


def only_class_name(value: object) -> str:
    """The class name of an error, or ``Error`` where `value` is anything but such a name."""
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, str) and _CLASS_NAME.fullmatch(value):
        return value
    return "Error"


def shortened(value: object, terms: CollectionPolicy) -> object:
    """Passages cut to as many sentences as their collection's policy lets out.

    Raises:
        DataError: `value` is no passage and no sequence of passages.
    """
    if isinstance(value, list | tuple):
        return tuple(shortened(item, terms) for item in value)
    if not isinstance(value, Passage):
        raise DataError(f"a {type(value).__name__} is no passage")
    if terms.release is not ReleaseLevel.SENTENCES:
        return value
    text = first_sentences(value.text, terms.max_sentences_per_passage)
    return replace(value, text=text, end=value.start + len(text))


def _items(value: object) -> Iterable[tuple[object, object]]:
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, list | tuple):
        return enumerate(value)
    if is_dataclass(value):
        return ((field.name, getattr(value, field.name)) for field in fields(value))
    return ()


def with_site_noise(
    parts: Sequence[tuple[Arrays, Arrays | None]], noise: SiteNoise, rng: Rng
) -> list[Arrays]:
    """All arrays of a contribution, the update clipped to one norm together and noised.

    Raises:
        PolicyRefused: A part came without the arrays that the round started from.
    """
    arrays: dict[str, NDArray[Any]] = {}
    start: dict[str, NDArray[Any]] = {}
    for index, (value, reference) in enumerate(parts):
        if reference is None:
            raise PolicyRefused(
                "site_noise bounds an update, so it needs the arrays that the round started from",
                hint="reply to a message that carried the arrays",
            )
        arrays |= {f"{index}/{name}": array for name, array in value.items()}
        start |= {f"{index}/{name}": array for name, array in reference.items()}
    noised = iter(
        noisy_arrays(arrays, start, noise.clip_norm, noise.noise_multiplier, rng.token).values()
    )
    return [{name: next(noised) for name in value} for value, _ in parts]
