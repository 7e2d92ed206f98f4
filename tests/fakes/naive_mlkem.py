"""ML-KEM-768 as FIPS 203 writes it down, slowly: key generation and encapsulation without chance.

The library that the product uses offers no encapsulation from a given message, so its decapsulation
could be checked against itself only. This is what it is checked against instead.
"""

from __future__ import annotations

import hashlib

Q, N, K = 3329, 256, 3
DU, DV = 10, 4

Poly = list[int]


def reversed_bits(number: int) -> int:
    return int(f"{number:07b}"[::-1], 2)


ZETAS = [pow(17, reversed_bits(index), Q) for index in range(128)]
GAMMAS = [pow(17, 2 * reversed_bits(index) + 1, Q) for index in range(128)]


def ntt(poly: Poly) -> Poly:
    found, index, length = list(poly), 1, 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            zeta, index = ZETAS[index], index + 1
            for place in range(start, start + length):
                turned = zeta * found[place + length] % Q
                found[place + length] = (found[place] - turned) % Q
                found[place] = (found[place] + turned) % Q
        length //= 2
    return found


def inverse_ntt(poly: Poly) -> Poly:
    found, index, length = list(poly), 127, 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            zeta, index = ZETAS[index], index - 1
            for place in range(start, start + length):
                kept = found[place]
                found[place] = (kept + found[place + length]) % Q
                found[place + length] = zeta * (found[place + length] - kept) % Q
        length *= 2
    return [value * 3303 % Q for value in found]


def product(one: Poly, other: Poly) -> Poly:
    found: Poly = []
    for index in range(128):
        a, b, c, d = *one[2 * index : 2 * index + 2], *other[2 * index : 2 * index + 2]
        found += [(a * c + b * d * GAMMAS[index]) % Q, (a * d + b * c) % Q]
    return found


def total(*polys: Poly) -> Poly:
    return [sum(values) % Q for values in zip(*polys, strict=True)]


def dot(row: list[Poly], column: list[Poly]) -> Poly:
    return total(*(product(one, other) for one, other in zip(row, column, strict=True)))


def uniform_poly(seed: bytes) -> Poly:
    """SampleNTT."""
    stream, start = hashlib.shake_128(seed).digest(1500), 0
    found: Poly = []
    while len(found) < N:
        low, middle, high = stream[start : start + 3]
        pair = (low + 256 * (middle % 16), middle // 16 + 16 * high)
        found += [value for value in pair if value < Q]
        start += 3
    return found[:N]


def small_poly(key: bytes, counter: int) -> Poly:
    """SamplePolyCBD of PRF, eta 2."""
    stream = int.from_bytes(hashlib.shake_256(key + bytes([counter])).digest(128), "little")
    found: Poly = []
    for index in range(N):
        bits = stream >> 4 * index
        found.append(((bits & 1) + (bits >> 1 & 1) - (bits >> 2 & 1) - (bits >> 3 & 1)) % Q)
    return found


def packed(poly: Poly, bits: int) -> bytes:
    """ByteEncode."""
    number = sum(value << bits * index for index, value in enumerate(poly))
    return number.to_bytes(32 * bits, "little")


def unpacked(body: bytes, bits: int) -> Poly:
    """ByteDecode."""
    number = int.from_bytes(body, "little")
    return [(number >> bits * index) % 2**bits for index in range(N)]


def compressed(poly: Poly, bits: int) -> Poly:
    return [(2 * value * 2**bits + Q) // (2 * Q) % 2**bits for value in poly]


def matrix(rho: bytes) -> list[list[Poly]]:
    return [[uniform_poly(rho + bytes([column, row])) for column in range(K)] for row in range(K)]


def public_key(seed: bytes) -> bytes:
    """ML-KEM.KeyGen_internal: the encapsulation key of d ‖ z."""
    spread = hashlib.sha3_512(seed[:32] + bytes([K])).digest()
    rho, sigma = spread[:32], spread[32:]
    secret = [ntt(small_poly(sigma, index)) for index in range(K)]
    error = [ntt(small_poly(sigma, K + index)) for index in range(K)]
    rows = [total(dot(row, secret), noise) for row, noise in zip(matrix(rho), error, strict=True)]
    return b"".join(packed(row, 12) for row in rows) + rho


def encapsulated(public: bytes, message: bytes) -> tuple[bytes, bytes]:
    """ML-KEM.Encaps_internal: the shared secret and its ciphertext."""
    shared = hashlib.sha3_512(message + hashlib.sha3_256(public).digest()).digest()
    key, coins = shared[:32], shared[32:]
    rows = [unpacked(public[384 * index : 384 * index + 384], 12) for index in range(K)]
    grid = matrix(public[-32:])
    blind = [ntt(small_poly(coins, index)) for index in range(K)]
    first = [
        total(
            inverse_ntt(dot([grid[row][column] for row in range(K)], blind)),
            small_poly(coins, K + column),
        )
        for column in range(K)
    ]
    bit_poly = [bit * ((Q + 1) // 2) for bit in unpacked(message, 1)]
    second = total(inverse_ntt(dot(rows, blind)), small_poly(coins, 2 * K), bit_poly)
    pieces = [packed(compressed(poly, DU), DU) for poly in first]
    return key, b"".join(pieces) + packed(compressed(second, DV), DV)


def rejected(seed: bytes, ciphertext: bytes) -> bytes:
    """What decapsulation gives for a ciphertext that nobody encapsulated: J(z ‖ c)."""
    return hashlib.shake_256(seed[32:] + ciphertext).digest(32)
