"""Secure sums once more, in the most obvious way: what the product's bytes are checked against.

Nothing here calls the product. Vectors are lists of whole numbers, masks are made from a whole
buffer of zeros, secrets are shared by evaluating a polynomial power by power.

Wire format. A message is "CSA", the version 1, its code, then the fields of `LAYOUTS` in order:

    u1 u2 u4 u8   a whole number of so many bytes, big-endian; i2 the same, two's complement
    f8            IEEE 754 double, big-endian
    bytes, text   four bytes of length, then the bytes (text: UTF-8)
    [a, b, ...]   four bytes of count, then so many rows of these columns

Keys. joined(p1, p2, ...) puts eight bytes of length before each part; a number is eight bytes.

    H(label, parts)        SHA-256(joined("comity/secagg/v1/" label, parts))
    E(key, label, parts)   HKDF-Expand(key, info = the same, 32 bytes)
    binding   H("binding", announcement, ...)
    chain f   E(HKDF-Extract(salt = binding, joined(X25519, ML-KEM)), "chain", lower, higher)
              where f is the first round of the epoch
    chain r+1 E(chain r, "ratchet", r)
    context   H("context", spec, binding, received, H("names", name, ...))
    seed      E(chain, "pair", context)
    share key E(chain, "share", from, to, context, commitment to the share)
    mask      AES-256-CTR from counter 0 under E(seed or secret, "vector" or "tail", context)

Random bytes of an upload: 31 the self mask's secret, 32 the seed of the polynomial, 32 for rounding
by chance (16-bit ring): one little-endian 32-bit draw a value, each tensor's count of draws filled
up to a multiple of four; a value is rounded up where the draw's upper 24 bits, over 2**24, are
below its fraction.
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

Fields = dict[str, Any]
EPOCH = [("federation", "text"), ("run", "text"), ("epoch", "u4")]
LAYOUTS: dict[str, tuple[int, list[tuple[str, Any]]]] = {
    "announce request": (
        1,
        [*EPOCH, ("first_round", "u8"), ("roster_version", "u8"), ("hybrid", "u1")],
    ),
    "announcement": (
        2,
        [
            *EPOCH,
            ("first_round", "u8"),
            ("roster_version", "u8"),
            ("site", "text"),
            ("x25519", "bytes"),
            ("mlkem", "bytes"),
            ("nonce", "bytes"),
            ("signature", "bytes"),
        ],
    ),
    "link request": (3, [("announcements", ["bytes"])]),
    "encapsulation": (
        4,
        [
            ("binding", "bytes"),
            ("sender", "text"),
            ("receiver", "text"),
            ("ciphertext", "bytes"),
            ("signature", "bytes"),
        ],
    ),
    "link": (5, [("encapsulations", ["bytes"])]),
    "spec": (
        6,
        [
            *EPOCH,
            ("round_number", "u8"),
            ("attempt", "u4"),
            ("message_type", "text"),
            ("cohort", ["text"]),
            ("threshold", "u2"),
            ("ring_bits", "u1"),
            ("tensors", ["text", "u8", "i2"]),
            ("metric_slots", "u2"),
            ("weight_key", "text"),
            ("max_weight", "u8"),
            ("clip_norm", "f8"),
            ("names", ["text"]),
        ],
    ),
    "invitation": (
        7,
        [("spec", "bytes"), ("announcements", ["bytes"]), ("encapsulations", ["bytes"])],
    ),
    "upload": (
        8,
        [
            ("context", "bytes"),
            ("tail", "bytes"),
            ("rows", ["bytes", "bytes", "bytes"]),
            ("commitment", "bytes"),
        ],
    ),
    "unfit": (9, [*EPOCH, ("round_number", "u8"), ("attempt", "u4")]),
    "reveal request": (
        10,
        [
            ("context", "bytes"),
            ("receiver", "text"),
            ("survivors", ["text"]),
            ("shares", ["text", "bytes", "bytes"]),
            ("signature", "bytes"),
        ],
    ),
    "reveal": (
        11,
        [
            ("context", "bytes"),
            ("shares", ["text", "bytes"]),
            ("seeds", ["text", "bytes"]),
            ("names", ["text"]),
        ],
    ),
    "complaint": (12, [("context", "bytes"), ("dealer", "text")]),
}


# --- bytes -----------------------------------------------------------------------------------


def real_bytes(value: float) -> bytes:
    """A double from its parts: sign, exponent, fraction; subnormal numbers are not needed."""
    if value == 0:
        return bytes(8)
    fraction, exponent = math.frexp(abs(value))
    number = (exponent + 1022 << 52) + int(Fraction(fraction) * 2**53) - 2**52
    return (number + (2**63 if value < 0 else 0)).to_bytes(8, "big")


def real_of(body: bytes) -> float:
    number = int.from_bytes(body, "big")
    sign, exponent, fraction = number >> 63, number >> 52 & 2047, number % 2**52
    if exponent == 0:
        return 0.0
    size = math.ldexp(2**52 + fraction, exponent - 1075)
    return -size if sign else size


def value_bytes(kind: Any, value: Any) -> bytes:
    if isinstance(kind, list):
        rows = [row if len(kind) > 1 else (row,) for row in value]
        cells = [value_bytes(*pair) for row in rows for pair in zip(kind, row, strict=True)]
        return len(rows).to_bytes(4, "big") + b"".join(cells)
    if kind == "f8":
        return real_bytes(value)
    if kind in {"bytes", "text"}:
        body: bytes = value.encode("utf-8") if kind == "text" else value
        return len(body).to_bytes(4, "big") + body
    number: bytes = value.to_bytes(int(kind[1:]), "big", signed=kind[0] == "i")
    return number


def message(name: str, fields: Fields, *, without: str = "") -> bytes:
    code, layout = LAYOUTS[name]
    body = b"".join(value_bytes(kind, fields[key]) for key, kind in layout if key != without)
    return b"CSA" + bytes([1, code]) + body


class Reader:
    """Takes a message apart from the front; `ValueError` where it does not follow the format."""

    def __init__(self, body: bytes) -> None:
        self.left = body

    def take(self, size: int) -> bytes:
        if size > len(self.left):
            raise ValueError("cut off")
        piece, self.left = self.left[:size], self.left[size:]
        return piece

    def value(self, kind: Any) -> Any:
        if isinstance(kind, list):
            count = int.from_bytes(self.take(4), "big")
            rows = [tuple(self.value(column) for column in kind) for _ in range(count)]
            return [row if len(kind) > 1 else row[0] for row in rows]
        if kind == "f8":
            return real_of(self.take(8))
        if kind in {"bytes", "text"}:
            body = self.take(int.from_bytes(self.take(4), "big"))
            return body.decode("utf-8") if kind == "text" else body
        return int.from_bytes(self.take(int(kind[1:])), "big", signed=kind[0] == "i")


def fields_of(name: str, body: bytes) -> Fields:
    code, layout = LAYOUTS[name]
    reader = Reader(body)
    if reader.take(5) != b"CSA" + bytes([1, code]):
        raise ValueError("another message")
    fields = {key: reader.value(kind) for key, kind in layout}
    if reader.left:
        raise ValueError("something behind the last field")
    return fields


# --- keys ------------------------------------------------------------------------------------


def joined(*parts: bytes | str | int) -> bytes:
    found = b""
    for part in parts:
        if isinstance(part, str):
            piece = part.encode()
        else:
            piece = part.to_bytes(8, "big") if isinstance(part, int) else part
        found += len(piece).to_bytes(8, "big") + piece
    return found


def tagged(label: str, parts: tuple[bytes | str | int, ...]) -> bytes:
    return joined("comity/secagg/v1/" + label, *parts)


def hashed(label: str, *parts: bytes | str | int) -> bytes:
    return hashlib.sha256(tagged(label, parts)).digest()


def derived(key: bytes, label: str, *parts: bytes | str | int) -> bytes:
    return HKDFExpand(hashes.SHA256(), 32, tagged(label, parts)).derive(key)


def extracted(salt: bytes, secret: bytes) -> bytes:
    mac = hmac.HMAC(salt, hashes.SHA256())
    mac.update(secret)
    return mac.finalize()


def signed(seed: bytes, label: str, body: bytes) -> bytes:
    tag = f"comity/secagg/v1/{label}\0".encode()
    return Ed25519PrivateKey.from_private_bytes(seed).sign(tag + body)


def chain_of(
    binding: bytes, private: bytes, public: bytes, kem: bytes, names: tuple[str, str]
) -> bytes:
    peer = X25519PublicKey.from_public_bytes(public)
    secret = X25519PrivateKey.from_private_bytes(private).exchange(peer)
    return derived(extracted(binding, joined(secret, kem)), "chain", *sorted(names))


def stepped(chain: bytes, start: int, stop: int) -> bytes:
    for number in range(start, stop):
        chain = derived(chain, "ratchet", number)
    return chain


def mask_words(key: bytes, count: int, size: int) -> list[int]:
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    stream = cipher.update(bytes(count * size))
    return [
        int.from_bytes(stream[start : start + size], "little")
        for start in range(0, count * size, size)
    ]


# --- Shamir ----------------------------------------------------------------------------------

FIELD = 2**255 - 19


def polynomial(secret: int, threshold: int, seed: bytes) -> list[int]:
    """Coefficients from the power 0 up; the stream gives that of the highest power first."""
    stream = hashlib.shake_256(b"comity/secagg/v1/shamir" + seed).digest(32 * (threshold + 7))
    drawn: list[int] = []
    for start in range(0, len(stream), 32):
        number = int.from_bytes(stream[start : start + 32], "big") // 2
        if number < FIELD:
            drawn.append(number)
    return [secret, *reversed(drawn[: threshold - 1])]


def share_at(coefficients: list[int], point: int) -> int:
    total = 0
    for power, value in enumerate(coefficients):
        total += value * point**power
    return total % FIELD


def interpolated(shares: dict[int, int]) -> int:
    """Lagrange at 0."""
    value = 0
    for point, share in shares.items():
        above, below = 1, 1
        for other in shares:
            if other != point:
                above, below = above * -other, below * (point - other)
        value += share * above * pow(below, FIELD - 2, FIELD)
    return value % FIELD


# --- numbers ---------------------------------------------------------------------------------


def site_words(spec: Fields, given: Fields, chance: bytes) -> tuple[list[int], list[int]] | None:
    """A site's words and its tail's, not masked; nothing where the range is too small."""
    sites, bits = len(spec["cohort"]), spec["ring_bits"]
    most = spec["max_weight"] * 65536
    wanted = round(Fraction(given["weight"]) * 65536)
    steps, capped = (most, 1) if wanted > most else (wanted, 0)
    changes = [
        [Fraction(a) - Fraction(b) for a, b in zip(array, start, strict=True)]
        for array, start in zip(given["arrays"], given["reference"], strict=True)
    ]
    factor, clipped = Fraction(steps, most), 0
    squares = sum(value * value for values in changes for value in values)
    if spec["clip_norm"] and squares > Fraction(spec["clip_norm"]) ** 2:
        factor, clipped = factor * Fraction(spec["clip_norm"] / math.sqrt(squares)), 1
    draws = mask_words(chance, 4 * sum(len(values) + 4 for values in changes), 4)
    words, start = [], 0
    for (_, _, exponent), values in zip(spec["tensors"], changes, strict=True):
        scaled = [value * factor * Fraction(2) ** exponent for value in values]
        if bits == 16:
            pairs = zip(scaled, draws[start:], strict=False)
            words += [
                math.floor(value) + (Fraction(draw // 256, 2**24) < value - math.floor(value))
                for value, draw in pairs
            ]
            start += -(-len(values) // 4) * 4
        else:
            words += [round(value) for value in scaled]
    if max((abs(word) for word in words), default=0) > (2 ** (bits - 1) - 1) // sites - 1:
        return None
    ring = [word % 2**bits for word in words]
    tail = [steps, capped, clipped, *quarters(ring, bits)]
    for metric in given["metrics"]:
        number = math.floor(Fraction(metric) * 2**64 * steps / most) + 2**126
        tail += [number // 2 ** (32 * limb) % 2**32 for limb in range(4)]
    return ring, tail + [0] * (7 + 4 * spec["metric_slots"] - len(tail))


def quarters(ring: list[int], bits: int) -> list[int]:
    size = math.ceil(len(ring) / 4)
    return [sum(ring[place * size : place * size + size]) % 2**bits for place in range(4)]


def read_tail(tail: list[int], metrics: int, sites: int) -> Fields:
    """Weight in steps, weights cut, updates clipped, checksums, metrics in units of 2**-64."""
    found = []
    for place in range(metrics):
        limbs = tail[7 + 4 * place : 11 + 4 * place]
        found.append(sum(limb * 2 ** (32 * power) for power, limb in enumerate(limbs)))
    return {
        "steps": tail[0],
        "capped": tail[1],
        "clipped": tail[2],
        "checks": tail[3:7],
        "metrics": [number - sites * 2**126 for number in found],
    }


def signed_word(word: int, bits: int) -> int:
    return word - 2**bits if word >= 2 ** (bits - 1) else word


def words_bytes(numbers: list[int], size: int) -> bytes:
    return b"".join(number.to_bytes(size, "little") for number in numbers)


def words_of(body: bytes, size: int) -> list[int]:
    return [int.from_bytes(body[at : at + size], "little") for at in range(0, len(body), size)]


# --- the parties -----------------------------------------------------------------------------


class NaiveSite:
    """One site; it trusts whatever it is told."""

    def __init__(self, name: str, identity: bytes) -> None:
        self.name = name
        self.identity = identity
        self.chains: dict[str, bytes] = {}
        self.round_number = 1

    def announce(self, request: bytes, random: bytes) -> bytes:
        asked = fields_of("announce request", request)
        self.round_number = asked["first_round"]
        self.private, self.kem_seed = random[:32], random[32:96]
        kem = MLKEM768PrivateKey.from_seed_bytes(self.kem_seed).public_key().public_bytes_raw()
        said = {
            **{key: asked[key] for key, _ in [*EPOCH, ("first_round", ""), ("roster_version", "")]},
            "site": self.name,
            "x25519": X25519PrivateKey.from_private_bytes(self.private)
            .public_key()
            .public_bytes_raw(),
            "mlkem": kem if asked["hybrid"] else b"",
            "nonce": random[96:],
        }
        body = message("announcement", said, without="signature")
        said["signature"] = signed(self.identity, "announcement", body)
        return message("announcement", said)

    def encapsulate(self, announcements: list[bytes], ciphertexts: dict[str, bytes]) -> bytes:
        """Signs the ciphertexts that are given, in the order of their receivers."""
        binding = hashed("binding", *announcements)
        rows = []
        for receiver in sorted(ciphertexts):
            row = {
                "binding": binding,
                "sender": self.name,
                "receiver": receiver,
                "ciphertext": ciphertexts[receiver],
            }
            body = message("encapsulation", row, without="signature")
            row["signature"] = signed(self.identity, "encapsulation", body)
            rows.append(message("encapsulation", row))
        return message("link", {"encapsulations": rows})

    def link(self, announcements: list[bytes], kems: dict[str, bytes]) -> None:
        self.binding = hashed("binding", *announcements)
        for body in announcements:
            peer = fields_of("announcement", body)
            if peer["site"] != self.name:
                kem = kems.get(peer["site"], b"")
                names = (self.name, peer["site"])
                self.chains[peer["site"]] = chain_of(
                    self.binding, self.private, peer["x25519"], kem, names
                )

    def step_to(self, number: int) -> None:
        self.chains = {
            peer: stepped(chain, self.round_number, number) for peer, chain in self.chains.items()
        }
        self.round_number = number

    def upload(self, spec: bytes, given: Fields, random: bytes) -> tuple[bytes, bytes]:
        """The upload and its vector; or an unfit, and nothing."""
        self.plan, self.names = fields_of("spec", spec), given["names"]
        self.step_to(self.plan["round_number"])
        words = site_words(self.plan, given, random[63:])
        if words is None:
            return message("unfit", self.plan), b""
        names = hashed("names", *given["names"])
        self.context = hashed("context", spec, self.binding, given["received"], names)
        size = self.plan["ring_bits"] // 8
        vector = self.masked(words[0], "vector", size, random[:31])
        tail = self.masked(words[1], "tail", 8, random[:31])
        fields = {
            "context": self.context,
            "tail": words_bytes(tail, 8),
            "rows": self.rows(random[:31], random[31:63]),
            "commitment": hashed("commit secret", self.context, random[:31]),
        }
        return message("upload", fields), words_bytes(vector, size)

    def seed(self, peer: str) -> bytes:
        return derived(self.chains[peer], "pair", self.context)

    def share_key(self, peer: str, pair: tuple[str, str], committed: bytes) -> bytes:
        return derived(self.chains[peer], "share", *pair, self.context, committed)

    def masked(self, words: list[int], label: str, size: int, secret: bytes) -> list[int]:
        found = list(words)
        for peer in [*self.plan["cohort"], ""]:
            if peer != self.name:
                seed = self.seed(peer) if peer else secret
                mask = mask_words(derived(seed, label, self.context), len(words), size)
                sign = -1 if peer > self.name else 1
                found = [
                    (word + sign * noise) % 256**size
                    for word, noise in zip(found, mask, strict=True)
                ]
        return found

    def rows(self, secret: bytes, seed: bytes) -> list[tuple[bytes, bytes, bytes]]:
        curve = polynomial(int.from_bytes(secret, "big"), self.plan["threshold"], seed)
        found = []
        for point, peer in enumerate(self.plan["cohort"], start=1):
            share = share_at(curve, point).to_bytes(32, "big")
            committed = hashed("commit share", self.context, self.name, peer, share)
            if peer == self.name:
                self.own_share = share
                found.append((b"", committed, b""))
                continue
            key = self.share_key(peer, (self.name, peer), committed)
            sealed = AESGCM(key).encrypt(bytes(12), share, self.context)
            pair = hashed("commit pair", self.context, *sorted((self.name, peer)), self.seed(peer))
            found.append((sealed, committed, pair))
        return found

    def reveal(self, request: bytes) -> bytes:
        asked = fields_of("reveal request", request)
        shares = {self.name: self.own_share}
        for peer, sealed, committed in asked["shares"]:
            key = self.share_key(peer, (peer, self.name), committed)
            try:
                shares[peer] = AESGCM(key).decrypt(bytes(12), sealed, self.context)
            except InvalidTag:
                return message("complaint", {"context": self.context, "dealer": peer})
        dropped = [peer for peer in self.plan["cohort"] if peer not in asked["survivors"]]
        answer = {
            "context": self.context,
            "shares": [(peer, shares[peer]) for peer in asked["survivors"]],
            "seeds": [(peer, self.seed(peer)) for peer in dropped],
            "names": self.names,
        }
        self.step_to(self.round_number + 1)
        return message("reveal", answer)


def reveal_requests(spec: bytes, uploads: dict[str, bytes], identity: bytes) -> dict[str, bytes]:
    cohort = fields_of("spec", spec)["cohort"]
    read = {name: fields_of("upload", body) for name, body in sorted(uploads.items())}
    requests = {}
    for receiver in read:
        place = cohort.index(receiver)
        asked: Fields = {
            "context": read[receiver]["context"],
            "receiver": receiver,
            "survivors": list(read),
            "shares": [(name, *read[name]["rows"][place][:2]) for name in read if name != receiver],
        }
        body = message("reveal request", asked, without="signature")
        asked["signature"] = signed(identity, "reveal", body)
        requests[receiver] = message("reveal request", asked)
    return requests


def opened(
    spec: bytes, uploads: dict[str, tuple[bytes, bytes]], reveals: dict[str, bytes]
) -> tuple[list[int], list[int]]:
    """The sum of the vectors and of the tails, from all uploads and enough answers."""
    plan, size = fields_of("spec", spec), fields_of("spec", spec)["ring_bits"] // 8
    answers = {name: fields_of("reveal", body) for name, body in reveals.items()}
    context = next(iter(answers.values()))["context"]
    points = {name: plan["cohort"].index(name) + 1 for name in answers}
    seeds = []
    for dealer in uploads:
        shares = {
            points[name]: int.from_bytes(dict(answer["shares"])[dealer], "big")
            for name, answer in answers.items()
        }
        seeds.append((interpolated(shares).to_bytes(31, "big"), 1))
    for name, answer in answers.items():
        seeds += [(seed, 1 if peer < name else -1) for peer, seed in answer["seeds"]]
    found = []
    for label, width, place in (("vector", size, 1), ("tail", 8, 0)):
        columns = [
            words_of(body[1] if place else fields_of("upload", body[0])["tail"], width)
            for body in uploads.values()
        ]
        total = [sum(column) for column in zip(*columns, strict=True)]
        for seed, sign in seeds:
            mask = mask_words(derived(seed, label, context), len(total), width)
            total = [word - sign * noise for word, noise in zip(total, mask, strict=True)]
        found.append([word % 256**width for word in total])
    return found[0], found[1]
