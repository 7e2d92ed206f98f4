"""Writes the transcripts beside it, from the naive implementation alone.

    .venv/bin/python -m tests.vectors.secagg.generate

Every key, nonce and secret comes from a label, so the files come out the same each time. ML-KEM
ciphertexts are the exception: what `sealed_from` derives under a label is a ciphertext too, made by
the naive ML-KEM from a message that is known.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

from tests.fakes import naive_mlkem
from tests.fakes.naive_secagg import (
    Fields,
    NaiveSite,
    fields_of,
    message,
    opened,
    read_tail,
    reveal_requests,
    signed_word,
)
from tests.vectors.secagg.failing import (
    PLACE,
    VERSION,
    Document,
    drawn,
    failing_all,
    failing_keys,
    failing_links,
    failing_sums,
    failing_unfit,
    identity_seed,
)

FOLDER = Path(__file__).parent
NAMES = ["arrays", "metrics", "loss", "shift"]


def contribution(case: Document, name: str, number: int) -> Fields:
    """Values that a float32 holds exactly, and so do their products with weight and scale."""
    arrays, reference = [], []
    for tensor, size, exponent in case["tensors"]:
        stream = drawn(2 * size, "values", tensor, name, number)
        start = drawn(size, "reference", tensor, number)
        scale = 2.0 ** (8 - exponent)
        changes = [(low - 128) * scale for low in stream[::2]]
        reference.append([byte * scale for byte in start])
        arrays.append([a + b for a, b in zip(changes, reference[-1], strict=True)])
    position = int(name[-1])
    given: Fields = {
        "arrays": arrays,
        "reference": reference,
        "weight": [512.0, 256.0, 1024.0, 128.0, 0.5][position],
        "metrics": [0.25 + position, -1.5 * position],
        "names": NAMES,
        "received": drawn(32, "model", number),
    }
    given.update(case.get("special", {}).get(name, {}))
    return given


class Recorder:
    """One transcript as it grows."""

    def __init__(self, case: Document) -> None:
        self.case = case
        self.names = [f"site-{number}" for number in range(case["sites"])]
        self.sites = {name: NaiveSite(name, identity_seed(name)) for name in self.names}
        self.document: Document = {
            "about": case["about"],
            "hybrid": case.get("hybrid", 0),
            "coordinator_seed": identity_seed("coordinator").hex(),
            "dtype": case.get("dtype", "float64"),
        }

    def run(self) -> Document:
        self.announce()
        self.document["rounds"] = [self.round(*row) for row in self.case["rounds"]]
        self.document["failing"] = self.case["failing"](self.document)
        return self.document

    def announce(self) -> None:
        keys = {"first_round": 1, "roster_version": VERSION, "hybrid": self.document["hybrid"]}
        fields = {**PLACE, **keys}
        request = message("announce request", fields)
        self.document |= {"announce_request": request.hex(), "sites": {}, "links": {}}
        announcements = []
        for name, site in self.sites.items():
            random = drawn(128, "announce", name)
            announcements.append(site.announce(request, random))
            self.document["sites"][name] = {
                "identity_seed": site.identity.hex(),
                "random": random.hex(),
                "announcement": announcements[-1].hex(),
            }
        self.announcements = announcements
        kems, self.encapsulations = self.sealed_from() if self.document["hybrid"] else ({}, {})
        for name, site in self.sites.items():
            site.link(announcements, kems.get(name, {}))

    def sealed_from(self) -> tuple[dict[str, dict[str, bytes]], dict[str, list[bytes]]]:
        """ML-KEM secrets of each site by peer, and the encapsulations that each is sent."""
        request = message("link request", {"announcements": self.announcements})
        self.document["link_request"] = request.hex()
        publics = [fields_of("announcement", body)["mlkem"] for body in self.announcements]
        kems: dict[str, dict[str, bytes]] = {name: {} for name in self.names}
        sent: dict[str, list[bytes]] = {name: [] for name in self.names}
        for place, name in enumerate(self.names):
            ciphertexts = {}
            for other, public in list(zip(self.names, publics, strict=True))[place + 1 :]:
                secret, sealed = naive_mlkem.encapsulated(public, drawn(32, "kem", name, other))
                ciphertexts[other] = sealed
                kems[name][other] = kems[other][name] = secret
            link = self.sites[name].encapsulate(self.announcements, ciphertexts)
            bodies = fields_of("link", link)["encapsulations"]
            for other, body in zip(ciphertexts, bodies, strict=True):
                sent[other].append(body)
            self.document["links"][name] = {
                "secrets": [kems[name][other].hex() for other in ciphertexts],
                "ciphertexts": [sealed.hex() for sealed in ciphertexts.values()],
                "message": link.hex(),
            }
        return kems, sent

    def spec(self, number: int, attempt: int) -> bytes:
        case = self.case
        return message(
            "spec",
            {
                **PLACE,
                "round_number": number,
                "attempt": attempt,
                "message_type": "train",
                "cohort": self.names,
                "threshold": case["threshold"],
                "ring_bits": case.get("ring_bits", 32),
                "tensors": case["tensors"],
                "metric_slots": 3,
                "weight_key": "num-examples",
                "max_weight": 1024,
                "clip_norm": case.get("clip_norm", 0.0),
                "names": NAMES if number > 1 else [],
            },
        )

    def round(self, number: int, attempt: int, first: bool) -> Document:  # noqa: FBT001 - a row of a table
        case, spec = self.case, self.spec(number, attempt)
        record: Document = {"spec": spec.hex(), "invitations": {}, "uploads": {}, "reveals": {}}
        uploads, reveals = {}, {}
        for name, site in self.sites.items():
            bodies = self.encapsulations.get(name, [])
            keys = {"announcements": self.announcements, "encapsulations": bodies}
            empty: Fields = {"announcements": [], "encapsulations": []}
            if first and self.document["hybrid"]:
                keys["announcements"] = []
            invitation = message("invitation", {"spec": spec, **(keys if first else empty)})
            record["invitations"][name] = invitation.hex()
            if name in case.get("before_upload", ()):
                continue
            given, random = contribution(case, name, number), drawn(95, "upload", name, number)
            body, vector = site.upload(spec, given, random)
            record["uploads"][name] = {
                "contribution": given | {"received": given["received"].hex()},
                "random": random.hex(),
                "message": body.hex(),
                "vector": vector.hex(),
            }
            uploads[name] = (body, vector)
        if not all(vector for _, vector in uploads.values()):
            return record
        bodies_only = {name: body for name, (body, _) in uploads.items()}
        requests = reveal_requests(spec, bodies_only, identity_seed("coordinator"))
        record["requests"] = {name: body.hex() for name, body in requests.items()}
        for name, request in requests.items():
            if name not in case.get("before_reveal", ()):
                reveals[name] = self.sites[name].reveal(request)
                record["reveals"][name] = reveals[name].hex()
        record["result"] = result_of(spec, uploads, reveals, record["uploads"])
        return record


def result_of(
    spec: bytes,
    uploads: dict[str, tuple[bytes, bytes]],
    reveals: dict[str, bytes],
    recorded: Document,
) -> Document:
    """The sum, and what it says; checked here against the contributions themselves."""
    plan = fields_of("spec", spec)
    vector, tail = opened(spec, uploads, reveals)
    read = read_tail(tail, 2, len(uploads))
    share = Fraction(read["steps"], 65536 * plan["max_weight"])
    reference = next(iter(recorded.values()))["contribution"]["reference"]
    means, place = [], 0
    for (_, size, exponent), start in zip(plan["tensors"], reference, strict=True):
        words = [signed_word(word, plan["ring_bits"]) for word in vector[place : place + size]]
        step = share * Fraction(2) ** exponent
        means.append(
            [float(word / step + Fraction(old)) for word, old in zip(words, start, strict=True)]
        )
        place += size
    return {
        "vector": vector,
        "tail": tail,
        "weight": read["steps"] / 65536,
        "share": float(share),
        "metrics": [float(Fraction(total, 2**64) / share) for total in read["metrics"]],
        "capped": read["capped"],
        "clipped": read["clipped"],
        "means": means,
    }


SMALL = [("layer.weight", 7, 10), ("layer.bias", 3, 12)]
CASES: dict[str, Document] = {
    "three-sites": {
        "about": "3 sites, nobody drops out; rounds 1 and 3, the second as attempt 2",
        "sites": 3,
        "threshold": 3,
        "tensors": SMALL,
        "rounds": [(1, 1, True), (3, 2, False)],
        "failing": failing_keys,
        "dtype": "float32",
    },
    "one-before-upload": {
        "about": "5 sites, one drops out before its upload",
        "sites": 5,
        "threshold": 4,
        "tensors": SMALL,
        "rounds": [(1, 1, True)],
        "before_upload": ["site-2"],
        "failing": failing_all,
    },
    "one-after-upload": {
        "about": "5 sites, one is lost after its upload and before its reveal",
        "sites": 5,
        "threshold": 4,
        "tensors": SMALL,
        "rounds": [(1, 1, True)],
        "before_reveal": ["site-3"],
        "failing": failing_all,
    },
    "small-ring": {
        "about": "4 sites in the ring of 16 bits, one clipped, one tensor empty, one lost early",
        "sites": 4,
        "threshold": 3,
        "ring_bits": 16,
        "clip_norm": 5.0,
        "tensors": [("a", 5, 8), ("none", 0, 0), ("b", 2, 6)],
        "special": {
            f"site-{number}": {
                "arrays": [[0.25 * number, 1.0, -0.5, 0.0, 0.125], [], [0.5, -0.5]],
                "reference": [[0.0] * 5, [], [0.0] * 2],
            }
            for number in range(3)
        }
        | {
            "site-3": {
                "arrays": [[6.0, 0.0, 0.0, 0.0, 0.0], [], [8.0, 0.0]],
                "reference": [[0.0] * 5, [], [0.0] * 2],
                "weight": 512.0,
            }
        },
        "before_upload": ["site-1"],
        "rounds": [(1, 1, True)],
        "failing": failing_sums,
    },
    "hybrid": {
        "about": "3 sites with ML-KEM-768 beside X25519; ciphertexts as recorded",
        "sites": 3,
        "threshold": 3,
        "hybrid": 1,
        "tensors": [("w", 4, 10)],
        "rounds": [(1, 1, True), (2, 1, False)],
        "failing": failing_links,
    },
    "unfit": {
        "about": "3 sites, one of which has what the plan has no room for, one too large a weight",
        "sites": 3,
        "threshold": 3,
        "tensors": [("w", 2, 20)],
        "special": {
            "site-0": {"arrays": [[1.0, 1e6]], "reference": [[0.0, 0.0]]},
            "site-2": {"weight": 1025.0},
        },
        "rounds": [(1, 1, True)],
        "failing": failing_unfit,
    },
}


def written(document: Document) -> str:
    return json.dumps(document, indent=1) + "\n"


def documents() -> dict[str, str]:
    """The text of each file, by its name."""
    return {f"{name}.json": written(Recorder(case).run()) for name, case in CASES.items()}


if __name__ == "__main__":
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
