"""Published answers for each primitive of secure sums, through the functions that use it."""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from tests.fakes import naive_mlkem
from tests.fakes.naive_secagg import (
    FIELD,
    derived,
    interpolated,
    joined,
    mask_words,
    polynomial,
    share_at,
)

from comity.adapters.pki import Identity
from comity.core.secagg import keys, shamir
from comity.core.secagg.mask import BLOCK_BYTES, Stream, apply_streams
from comity.errors import Malformed, Verification

hexed = bytes.fromhex

# --- X25519, RFC 7748 ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scalar", "coordinate", "expected"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_x25519_of_rfc_7748_section_5_2(scalar: str, coordinate: str, expected: str) -> None:
    assert keys.shared_secret(hexed(scalar), hexed(coordinate)).hex() == expected


def test_x25519_of_rfc_7748_section_5_2_a_thousand_times() -> None:
    scalar = coordinate = b"\x09" + bytes(31)
    seen = []
    for _ in range(1000):
        scalar, coordinate = keys.shared_secret(scalar, coordinate), scalar
        seen.append(scalar.hex())
    assert seen[0] == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert seen[-1] == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_the_exchange_of_rfc_7748_section_6_1() -> None:
    alice = hexed("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = hexed("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    said_by_alice = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    said_by_bob = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert keys.public_of(alice).hex() == said_by_alice
    assert keys.public_of(bob).hex() == said_by_bob
    assert keys.shared_secret(alice, hexed(said_by_bob)).hex() == shared
    assert keys.shared_secret(bob, hexed(said_by_alice)).hex() == shared


@pytest.mark.parametrize(
    "point",
    [
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ],
)
def test_a_point_of_small_order_gives_no_secret(point: str) -> None:
    with pytest.raises(Verification):
        keys.shared_secret(bytes(range(32)), hexed(point))


# --- Ed25519, RFC 8032 -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "public", "message", "signature"),
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            (
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
                "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
            ),
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            (
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            ),
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            (
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
            ),
        ),
    ],
)
def test_identities_sign_as_rfc_8032_section_7_1_says(
    seed: str, public: str, message: str, signature: str
) -> None:
    identity = Identity.from_seed(hexed(seed))
    assert identity.public_key().hex() == public
    assert identity.sign(hexed(message)).hex() == signature
    identity.verify(hexed(public), hexed(message), hexed(signature))
    with pytest.raises(Verification):
        identity.verify(hexed(public), hexed(message) + b"\0", hexed(signature))


# --- HKDF, RFC 5869 --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("salt", "secret", "expected"),
    [
        (
            bytes(range(13)),
            b"\x0b" * 22,
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
        ),
        (
            bytes(range(0x60, 0xB0)),
            bytes(range(0x50)),
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
        ),
        (
            b"",
            b"\x0b" * 22,
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
        ),
    ],
)
def test_extract_of_rfc_5869_appendix_a(salt: bytes, secret: bytes, expected: str) -> None:
    assert keys.extract(salt, secret).hex() == expected


def test_expand_is_the_first_block_of_rfc_5869_appendix_a() -> None:
    key = hexed("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    info = hexed("f0f1f2f3f4f5f6f7f8f9")
    known = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    assert HKDFExpand(hashes.SHA256(), 32, info).derive(key).hex() == known
    labelled = joined("comity/secagg/v1/label", info, "text", 7)
    expected = HKDFExpand(hashes.SHA256(), 32, labelled).derive(key)
    assert keys.expand(key, "label", info, "text", 7) == expected
    assert derived(key, "label", info, "text", 7) == expected


def test_joined_parts_are_written_out_by_hand() -> None:
    expected = "0000000000000002" + "6162" + "0000000000000000" + "0000000000000008" + "00" * 7
    assert keys.joined("ab", b"", 9).hex() == expected + "09"
    assert keys.joined("ab", "c") != keys.joined("a", "bc")


def test_every_use_of_a_key_has_a_label_of_its_own() -> None:
    key, context = bytes(32), bytes(range(32))
    found = [
        keys.next_chain(key, 1),
        keys.next_chain(key, 2),
        keys.pair_seed(key, context),
        keys.share_key(key, ("a", "b"), context, context),
        keys.share_key(key, ("b", "a"), context, context),
        keys.share_key(key, ("a", "b"), context, bytes(32)),
        keys.vector_key(key, context),
        keys.tail_key(key, context),
        keys.first_chain(key, key, b"", ("a", "b")),
        keys.first_chain(key, b"", key, ("a", "b")),
        keys.first_chain(key, key, key, ("a", "b")),
        keys.first_chain(key, key, key, ("a", "c")),
    ]
    assert len(set(found)) == len(found)


# --- AES-256-CTR, NIST SP 800-38A F.5.5 ------------------------------------------------------

NIST_KEY = hexed("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
NIST_COUNTER = 0xF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF
NIST_PLAIN = hexed(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
NIST_CIPHER = hexed(
    "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
    "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
)
RINGS: list[Any] = [np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("dtype", RINGS)
@pytest.mark.parametrize("negative", [False, True])
def test_a_mask_is_the_key_stream_of_sp_800_38a(dtype: Any, *, negative: bool) -> None:
    size = np.dtype(dtype).itemsize
    stream = bytes(a ^ b for a, b in zip(NIST_PLAIN, NIST_CIPHER, strict=True))
    words = [int.from_bytes(stream[at : at + size], "little") for at in range(0, 64, size)]
    vector = np.full(64 // size, 3, dtype)
    apply_streams(vector, [Stream(NIST_KEY, negative)], start=NIST_COUNTER * 16 // size)
    sign = -1 if negative else 1
    assert vector.tolist() == [(3 + sign * word) % 256**size for word in words]


def test_a_mask_starts_at_counter_0() -> None:
    """The block cipher under a key of zeros, from the AES-256 cases of the GCM specification."""
    vector = np.zeros(6, np.uint64)
    apply_streams(vector, [Stream(bytes(32))])
    assert vector.tobytes().hex() == (
        "dc95c078a2408989ad48a21492842087"
        "530f8afbc74536b9a963b4f1c4cb738b"
        "cea7403d4d606b6e074ec5d3baf39d18"
    )


@pytest.mark.parametrize("dtype", RINGS)
def test_slices_and_blocks_give_the_same_masks_as_the_whole(dtype: Any) -> None:
    size = np.dtype(dtype).itemsize
    count = 2 * BLOCK_BYTES // size + 5
    streams = [Stream(bytes([place]) * 32, place == 1) for place in range(3)]
    whole: Any = np.arange(count, dtype=dtype)
    expected = whole.copy()
    for stream in streams:
        noise = np.array(mask_words(stream.key, count, size), dtype)
        expected = expected - noise if stream.negative else expected + noise
    sliced = whole.copy()
    apply_streams(whole, streams)
    step = BLOCK_BYTES // size + 16
    for start in range(0, count, step):
        apply_streams(sliced[start : start + step], streams, start=start)
    assert np.array_equal(whole, expected)
    assert np.array_equal(sliced, expected)


@pytest.mark.parametrize(("dtype", "start"), [(np.uint16, 4), (np.uint32, 2), (np.uint64, 1)])
def test_a_slice_that_cuts_a_block_of_the_cipher_is_refused(dtype: Any, start: int) -> None:
    vector = np.zeros(8, dtype)
    with pytest.raises(Malformed):
        apply_streams(vector, [Stream(bytes(32))], start=start)
    assert not vector.any()


# --- ML-KEM-768, FIPS 203 --------------------------------------------------------------------


def test_ml_kem_768_gives_the_accumulated_answer_of_go_s_crypto_mlkem() -> None:
    """A hundred keys, encapsulations and rejections, hashed together (TestAccumulated, short).

    Seeds, messages and ciphertexts come from SHAKE-128 of nothing; the encapsulations, which take
    their chance from there, are the naive implementation's.
    """
    stream, found = hashlib.shake_128(b"").digest(100 * (64 + 32 + 1088)), hashlib.shake_128()
    for start in range(0, len(stream), 64 + 32 + 1088):
        seed, message = stream[start : start + 64], stream[start + 64 : start + 96]
        noise = stream[start + 96 : start + 96 + 1088]
        public = keys.mlkem_public(seed)
        secret, ciphertext = naive_mlkem.encapsulated(public, message)
        assert keys.decapsulated(seed, ciphertext) == secret
        for piece in (public, ciphertext, secret, keys.decapsulated(seed, noise)):
            found.update(piece)
    expected = "1114b1b6699ed191734fa339376afa7e285c9e6acf6ff0177d346696ce564415"
    assert found.digest(32).hex() == expected


def test_key_generation_follows_fips_203_from_the_seed() -> None:
    for number in range(3):
        seed = hashlib.shake_256(bytes([number])).digest(64)
        assert keys.mlkem_public(seed) == naive_mlkem.public_key(seed)


def test_an_altered_ciphertext_gives_the_secret_of_implicit_rejection() -> None:
    seed = bytes(range(64))
    secret, ciphertext = keys.encapsulated(keys.mlkem_public(seed))
    assert keys.decapsulated(seed, ciphertext) == secret
    for place in (0, 500, 1087):
        altered = bytearray(ciphertext)
        altered[place] ^= 1
        found = keys.decapsulated(seed, bytes(altered))
        assert found == naive_mlkem.rejected(seed, bytes(altered))
        assert found != secret


@pytest.mark.parametrize(
    "public", [b"", bytes(1183), bytes(1185), b"\xff" * 1184, b"\x01\x0d" + bytes(1182)]
)
def test_what_is_no_ml_kem_key_is_refused_unless_its_numbers_are_reduced(public: bytes) -> None:
    if public[:2] == b"\x01\x0d":  # 3329 = 0xd01: the first number is the modulus itself
        assert public[0] + 256 * (public[1] % 16) == naive_mlkem.Q
    with pytest.raises(Verification):
        keys.encapsulated(public)


# --- Shamir ----------------------------------------------------------------------------------


def as_share(number: int) -> bytes:
    return (number % FIELD).to_bytes(32, "big")


def test_shares_worked_out_by_hand() -> None:
    """f(x) = 7 + 3x + 2x²: 12, 21 and 34 at 1, 2 and 3; g(x) = 5 - x leaves the numbers below 0."""
    assert shamir.weights([1, 2, 3]) == [3, FIELD - 3, 1]
    shares = {point: as_share(7 + 3 * point + 2 * point**2) for point in (1, 2, 3)}
    assert shamir.recovered(shares) == (7).to_bytes(31, "big")
    assert shamir.recovered({9: as_share(-4), 2: as_share(3)}) == (5).to_bytes(31, "big")


@pytest.mark.parametrize(("threshold", "count"), [(1, 1), (1, 4), (2, 3), (4, 7), (9, 9)])
def test_shares_are_the_textbook_polynomial_s(threshold: int, count: int) -> None:
    secret, seed = bytes(range(31)), bytes(range(32, 64))
    curve = polynomial(int.from_bytes(secret, "big"), threshold, seed)
    assert len(curve) == threshold
    points = range(1, count + 1)
    shares = shamir.split(secret, threshold, points, seed)
    assert shares == [as_share(share_at(curve, point)) for point in points]
    for chosen in combinations(points, threshold):
        given = {point: shares[point - 1] for point in chosen}
        assert shamir.recovered(given) == secret
        numbers = {point: int.from_bytes(share, "big") for point, share in given.items()}
        assert interpolated(numbers).to_bytes(31, "big") == secret


def test_the_first_coefficients_of_a_known_seed() -> None:
    stream = hashlib.shake_256(b"comity/secagg/v1/shamir" + bytes(32)).digest(64)
    one, two = (int.from_bytes(stream[at : at + 32], "big") >> 1 for at in (0, 32))
    share = shamir.split(bytes(31), 3, [1, 2, 3], bytes(32))[1]
    assert share == as_share(4 * one + 2 * two)


@pytest.mark.parametrize(
    ("secret", "threshold", "points", "seed"),
    [
        (bytes(30), 1, [1], bytes(32)),
        (bytes(32), 1, [1], bytes(32)),
        (bytes(31), 1, [1], bytes(31)),
        (bytes(31), 0, [1], bytes(32)),
        (bytes(31), 2, [1], bytes(32)),
        (bytes(31), 2, [0, 1], bytes(32)),
        (bytes(31), 2, [1, 1], bytes(32)),
        (bytes(31), 1, [FIELD], bytes(32)),
    ],
)
def test_shares_that_would_give_the_secret_away_are_not_made(
    secret: bytes, threshold: int, points: list[int], seed: bytes
) -> None:
    with pytest.raises(Malformed):
        shamir.split(secret, threshold, points, seed)


@pytest.mark.parametrize("share", [bytes(31), bytes(33), FIELD.to_bytes(32, "big"), b"\xff" * 32])
def test_what_is_no_share_is_refused(share: bytes) -> None:
    with pytest.raises(Malformed):
        shamir.share_number(share)


def test_shares_of_no_secret_are_refused() -> None:
    with pytest.raises(Malformed):
        shamir.recovered({1: as_share(2**248)})
    assert shamir.recovered({1: as_share(2**248 - 1)}) == b"\xff" * 31
