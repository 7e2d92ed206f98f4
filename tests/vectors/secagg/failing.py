"""Failing steps of a transcript: which message to whom, after what, and how it is refused.

Each row alters a message that was right, and signs it again where a liar could. Not every lie is
refused: a row may say instead what the site answers, or why the attempt is void once it is closed.
"""

from __future__ import annotations

import hashlib
from typing import Any

from tests.fakes.naive_secagg import Fields, fields_of, message, signed

PLACE: Fields = {"federation": "north", "run": "run-1", "epoch": 1}
VERSION = 7

Document = dict[str, Any]


def drawn(size: int, *parts: str | int) -> bytes:
    return hashlib.shake_256("/".join(map(str, ("transcript", *parts))).encode()).digest(size)


def identity_seed(name: str) -> bytes:
    return drawn(32, "identity", name)


class Rows:
    """Failing steps of one transcript: who gets which message when, and what it is refused as."""

    def __init__(self, document: Document, round_number: int = 0) -> None:
        self.document = document
        self.at = round_number
        self.record = document["rounds"][round_number]
        self.rows: list[Document] = []

    def add(self, what: str, to: str, after: str, kind: str, body: bytes, error: str) -> None:
        self.rows.append(
            {
                "what": what,
                "to": to,
                "round": self.at,
                "after": after,
                "kind": kind,
                "message": body.hex(),
                "error": error,
            }
        )

    def from_site(
        self, what: str, site: str, after: str, kind: str, body: bytes, error: str
    ) -> None:
        self.add(what, "coordinator", after, kind, body, error)
        self.rows[-1]["sender"] = site

    def answered(
        self, what: str, to: str, after: str, sent: tuple[str, bytes], answer: bytes
    ) -> None:
        """Not an error, but an answer that changes nothing."""
        self.add(what, to, after, *sent, "")
        self.rows[-1]["answer"] = answer.hex()

    def voided(self, what: str, site: str, after: str, body: bytes, sites: list[str]) -> None:
        """An upload that is taken, and voids the attempt once the others have uploaded."""
        self.from_site(what, site, after, "upload", body, "")
        self.rows[-1] |= {"void": "DISAGREE", "sites": sites}

    def invitation(self, name: str, change: Fields, **keys: list[bytes]) -> bytes:
        """The invitation of `name` with fields of its plan changed, or its bodies."""
        fields = fields_of("invitation", bytes.fromhex(self.record["invitations"][name]))
        spec = fields_of("spec", fields["spec"]) | change
        return message("invitation", fields | {"spec": message("spec", spec)} | keys)

    def request(self, name: str, change: Fields) -> bytes:
        """The reveal request to `name`, changed and signed again by the coordinator."""
        fields = fields_of("reveal request", bytes.fromhex(self.record["requests"][name])) | change
        if "signature" not in change:
            body = message("reveal request", fields, without="signature")
            fields["signature"] = signed(identity_seed("coordinator"), "reveal", body)
        return message("reveal request", fields)

    def upload(self, name: str, change: Fields) -> bytes:
        body = bytes.fromhex(self.record["uploads"][name]["message"])
        return message("upload", fields_of("upload", body) | change)

    def reveal(self, name: str, change: Fields) -> bytes:
        body = bytes.fromhex(self.record["reveals"][name])
        return message("reveal", fields_of("reveal", body) | change)


def flipped(body: bytes, place: int = 0) -> bytes:
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


def announcement_of(document: Document, name: str, change: Fields, signer: str) -> bytes:
    body = bytes.fromhex(document["sites"][name]["announcement"])
    fields = fields_of("announcement", body) | change
    unsigned = message("announcement", fields, without="signature")
    fields["signature"] = signed(identity_seed(signer), "announcement", unsigned)
    return message("announcement", fields)


def failing_keys(document: Document) -> list[Document]:
    """Before and at the invitation: keys and plans that lie."""
    rows, me = Rows(document), "site-1"
    bodies = [bytes.fromhex(row["announcement"]) for row in document["sites"].values()]
    other = {"federation": "south", "run": "run-1", "epoch": 1}
    asked = {**PLACE, "first_round": 1, "roster_version": VERSION, "hybrid": 0}
    good = bytes.fromhex(document["rounds"][0]["invitations"][me])

    def keys(what: str, error: str, announcements: list[bytes]) -> None:
        body = rows.invitation(me, {}, announcements=announcements)
        rows.add(what, me, "announce", "invitation", body, error)

    def ask(what: str, error: str, after: str, **change: Any) -> None:
        body = message("announce request", asked | change)
        rows.add(what, me, after, "announce request", body, error)

    def raw(what: str, error: str, body: bytes) -> None:
        rows.add(what, me, "announce", "invitation", body, error)

    rows.add("no keys announced", me, "start", "invitation", good, "WrongStage")
    ask("keys for another federation", "Verification", "start", **other)
    ask("keys over another roster", "Verification", "start", roster_version=VERSION + 1)
    ask("keys of a kind that is none", "Malformed", "start", hybrid=2)
    ask("keys from round 0 on", "Malformed", "start", first_round=0)
    ask("keys for a run without a name", "Malformed", "start", run="")
    ask("an epoch again, other keys", "Replay", "announce", hybrid=1)
    ask("an epoch again, from another round on", "Replay", "announce", first_round=2)
    ask("an older epoch", "Replay", "announce", epoch=0)
    ask("keys of another run in the place of these", "Verification", "announce", run="run-2")
    ask("a new epoch from a round that was revealed", "Replay", "reveal", epoch=2)
    ask("an epoch again, after its first plan", "Replay", "invitation")
    raw("cut off by one byte", "Malformed", good[:-1])
    raw("cut off in its plan", "Malformed", good[:40])
    raw("cut off in its head", "Malformed", good[:4])
    raw("an unknown field behind the last", "Malformed", good + bytes(4))
    raw("an unknown version", "VersionMismatch", good[:3] + b"\x02" + good[4:])
    raw("another message", "Malformed", good[:4] + b"\x08" + good[5:])
    raw("no message", "Malformed", b"")
    spec = fields_of("invitation", good)["spec"]
    fields = fields_of("invitation", good)
    raw(
        "a plan with a field more",
        "Malformed",
        message("invitation", fields | {"spec": spec + b"\0"}),
    )
    keys("no announcements", "Verification", [])
    keys("own announcement left out", "Verification", [bodies[0], bodies[2]])
    keys("announcements out of order", "Malformed", [bodies[1], bodies[0], bodies[2]])
    keys("an announcement twice", "Malformed", [bodies[0], bodies[0], *bodies[1:]])
    keys("an announcement cut off", "Malformed", [bodies[0][:-1], *bodies[1:]])
    keys("an announcement altered", "Verification", [flipped(bodies[0], 60), *bodies[1:]])
    mine = {"x25519": bytes(range(32))}
    changes: list[tuple[str, str, str, Fields, str]] = [
        ("a key signed by another", "Verification", "site-0", mine, "coordinator"),
        ("another key of its own", "Verification", "site-1", mine, "site-1"),
        ("a site that was invented", "NotAMember", "site-0", {"site": "evil"}, "coordinator"),
        ("a key of an old epoch", "Verification", "site-0", {"epoch": 0}, "site-0"),
        ("a key of another run", "Verification", "site-0", {"run": "run-0"}, "site-0"),
        ("a key from another round on", "Verification", "site-0", {"first_round": 2}, "site-0"),
        (
            "a hybrid key among plain ones",
            "Verification",
            "site-0",
            {"mlkem": bytes(1184)},
            "site-0",
        ),
        ("a key of small order", "Verification", "site-0", {"x25519": bytes(32)}, "site-0"),
    ]
    for what, error, name, change, signer in changes:
        changed, place = announcement_of(document, name, change, signer), int(name[-1])
        keys(what, error, [*bodies[:place], changed, *bodies[place + 1 :]])
    links = message("link request", {"announcements": bodies})
    rows.add("a link in a plain epoch", me, "announce", "link request", links, "WrongStage")
    later = failing_plans(document) + failing_reveals(document) + failing_later(document)
    return rows.rows + later


def document_tensors(rows: Rows) -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = fields_of("spec", bytes.fromhex(rows.record["spec"]))[
        "tensors"
    ]
    return found


def failing_plans(document: Document) -> list[Document]:
    """Plans that lie, or that the site's terms forbid."""
    rows, me = Rows(document), "site-1"

    def plan(what: str, error: str, after: str = "announce", **change: Any) -> None:
        rows.add(what, me, after, "invitation", rows.invitation(me, change), error)

    plan("a plan of another run", "Verification", run="run-2")
    plan("a plan of another epoch", "Verification", epoch=2)
    plan("round 0", "WrongStage", round_number=0, attempt=1)
    plan("attempt 0", "Malformed", attempt=0)
    plan("a cohort of two", "CohortTooSmall", cohort=["site-0", "site-1"], threshold=2)
    plan("a cohort of itself", "CohortTooSmall", cohort=["site-1"], threshold=1)
    plan("a cohort without it", "Verification", cohort=["site-0", "site-2"], threshold=2)
    plan("a cohort with a stranger", "NotAMember", cohort=["evil", "site-0", "site-1"])
    plan("a cohort out of order", "Malformed", cohort=["site-1", "site-0", "site-2"])
    plan("a site twice in the cohort", "Malformed", cohort=["site-0", "site-1", "site-1"])
    plan("a threshold too low", "PolicyRefused", threshold=2)
    plan("a threshold that nobody meets", "PolicyRefused", threshold=4)
    plan("a ring of 8 bits", "Malformed", ring_bits=8)
    plan("too many rounds skipped", "PolicyRefused", round_number=10**6)
    plan("a tensor twice", "Malformed", tensors=[("w", 1, 0), ("w", 1, 0)])
    plan("a scale out of bounds", "Malformed", tensors=[("w", 1, 101)])
    plan("a clip norm below 0", "Malformed", clip_norm=-1.0)
    plan("a clip norm beyond the range", "PolicyRefused", clip_norm=1e9)
    plan("another weight", "PolicyRefused", weight_key="age")
    plan("a largest weight of 0", "PolicyRefused", max_weight=0)
    plan("too large a weight", "PolicyRefused", max_weight=2**21)
    plan("a largest weight that is no power of two", "Malformed", max_weight=1023)
    finer = [(name, size, exponent + 1) for name, size, exponent in document_tensors(rows)]
    plan("a finer next attempt", "PolicyRefused", "upload", attempt=2, tensors=finer)
    (name, size, exponent), *others = document_tensors(rows)
    one = [(name, size, exponent - 1), *others]
    plan("a next attempt, coarser in part", "PolicyRefused", "upload", attempt=2, tensors=one)
    plan("a next attempt, other weight", "PolicyRefused", "upload", attempt=2, max_weight=512)
    plan("a next attempt, other clip norm", "PolicyRefused", "upload", attempt=2, clip_norm=1.0)
    plan("a next attempt in the small ring", "PolicyRefused", "upload", attempt=2, ring_bits=16)
    part = [(name, size - 1, exponent), *others]
    plan("a next attempt of other sizes", "PolicyRefused", "upload", attempt=2, tensors=part)
    plan("the same attempt, another plan", "Replay", "invitation", metric_slots=2)
    plan("the same attempt, after the upload", "Replay", "upload")
    plan("the same round, after the reveal", "WrongStage", "reveal")
    plan("a next attempt, after the reveal", "WrongStage", "reveal", attempt=2)
    return rows.rows


def failing_reveals(document: Document) -> list[Document]:
    """Reveal requests that lie, each signed by the coordinator unless it says otherwise."""
    rows, me = Rows(document), "site-1"
    cohort = list(document["sites"])
    good = fields_of("reveal request", bytes.fromhex(rows.record["requests"][me]))
    shares, survivors = good["shares"], good["survivors"]
    (first, sealed, committed), last = shares[0], shares[-1]
    gone = survivors[-1]

    def ask(what: str, error: str, after: str = "upload", **change: Any) -> None:
        rows.add(what, me, after, "reveal request", rows.request(me, change), error)

    def share(what: str, row: tuple[str, bytes, bytes]) -> None:
        sent = rows.request(me, {"shares": [row, *shares[1:]]})
        complaint = message("complaint", {"context": good["context"], "dealer": first})
        rows.answered(what, me, "upload", ("reveal request", sent), complaint)

    ask("a reveal before the upload", "WrongStage", "invitation")
    ask("a reveal of another context", "WrongStage", context=drawn(32, "other"))
    ask("a reveal that nobody signed", "Verification", signature=bytes(64))
    ask("a reveal for another site", "Verification", receiver=first)
    share("a share altered", (first, flipped(sealed), committed))
    share("a share's commitment altered", (first, sealed, flipped(committed)))
    share("a share of another site", (first, last[1], last[2]))
    ask("a share left out", "Malformed", shares=shares[:-1])
    ask("shares out of order", "Malformed", shares=shares[::-1])
    ask("it is said to have dropped", "Verification", survivors=[n for n in cohort if n != me])
    ask("survivors below the threshold", "Verification", survivors=[first, me], shares=shares[:1])
    stranger = ["evil", *survivors]
    ask("a survivor who is a stranger", "Verification", survivors=stranger)
    ask("survivors out of order", "Malformed", survivors=survivors[::-1])
    ask("a survivor twice", "Malformed", survivors=[first, *survivors])
    body = rows.request(me, {})
    rows.add("a request cut off", me, "upload", "reveal request", body[:-1], "Malformed")
    rows.add("a request that goes on", me, "upload", "reveal request", body + b"0", "Malformed")
    fewer = [name for name in survivors if name != gone]
    kept = [row for row in shares if row[0] != gone]
    ask("a second reveal, other survivors", "Replay", "reveal", survivors=fewer, shares=kept)
    return rows.rows


def failing_later(document: Document) -> list[Document]:
    """In a later round: what belongs to the earlier one."""
    if len(document["rounds"]) == 1:
        return []
    rows, me = Rows(document, 1), "site-1"
    before = Rows(document, 0)
    old = before.request(me, {})
    rows.add("the reveal of an earlier round", me, "upload", "reveal request", old, "WrongStage")
    again = before.invitation(me, {})
    rows.add("an earlier round", me, "invitation", "invitation", again, "WrongStage")
    stale = rows.invitation(me, {"attempt": 1})
    rows.add("a stale attempt", me, "invitation", "invitation", stale, "Replay")
    middle = rows.invitation(me, {"round_number": 2, "attempt": 9})
    rows.add("a round that was skipped", me, "invitation", "invitation", middle, "Replay")
    return rows.rows


def failing_sums(document: Document) -> list[Document]:
    """What the coordinator refuses of its sites."""
    rows = Rows(document)
    uploads, reveals = list(rows.record["uploads"]), list(rows.record["reveals"])
    one, two = uploads[0], uploads[1]
    read = fields_of("upload", rows.upload(two, {}))
    table, other = read["rows"], drawn(32, "other")
    sent = rows.upload(one, {})
    answer = fields_of("reveal", rows.reveal(reveals[0], {}))
    shares, seeds, who = answer["shares"], answer["seeds"], reveals[0]

    def up(what: str, error: str, **change: Any) -> None:
        rows.from_site(what, two, "first upload", "upload", rows.upload(two, change), error)

    def tell(what: str, error: str, **change: Any) -> None:
        rows.from_site(what, who, "closed", "reveal", rows.reveal(who, change), error)

    rows.from_site("an upload of a stranger", "evil", "open", "upload", sent, "NotAMember")
    early = rows.reveal(who, {})
    rows.from_site("a reveal while collecting", who, "open", "reveal", early, "WrongStage")
    rows.from_site("an upload twice", one, "first upload", "upload", sent, "Replay")
    rows.from_site("an upload after the close", one, "closed", "upload", sent, "WrongStage")
    lie = rows.upload(two, {"context": other})
    rows.voided("an upload for another context", two, "first upload", lie, [two])
    altered = [(a, b, flipped(c) if c else c) for a, b, c in table]
    lie = rows.upload(two, {"rows": altered})
    rows.voided("a pair's seed altered", two, "first upload", lie, [two])
    up("a share left out", "Malformed", rows=table[:-1])
    up("a share that is empty", "Malformed", rows=[(b"", b, c) for _, b, c in table])
    up("a pair's commitment left out", "Malformed", rows=[(a, b, b"") for a, b, _ in table])
    up("a tail too short", "Malformed", tail=read["tail"][:-8])
    up("a tail cut in a word", "Malformed", tail=read["tail"][:-1])
    place = {**PLACE, "round_number": 1, "attempt": 1}
    for what, sender, change, error in (
        ("unfit after its upload", one, {}, "Replay"),
        ("unfit for another attempt", two, {"attempt": 2}, "Verification"),
        ("unfit for another run", two, {"run": "run-2"}, "Verification"),
    ):
        body = message("unfit", place | change)
        rows.from_site(what, sender, "first upload", "unfit", body, error)
    late = message("unfit", place)
    rows.from_site("unfit after the close", one, "closed", "unfit", late, "WrongStage")
    (name, share), prime = shares[0], (2**255 - 19).to_bytes(32, "big")
    tell("a share altered", "Verification", shares=[(name, flipped(share, 31)), *shares[1:]])
    tell("a share beyond the field", "Verification", shares=[(name, prime), *shares[1:]])
    tell("a share left out", "Malformed", shares=shares[:-1])
    tell("shares out of order", "Malformed", shares=shares[::-1])
    tell("a reveal of another context", "Verification", context=other)
    tell("other names than it summed", "Verification", names=["arrays", "metrics", "loss", "x"])
    tell("a seed too many", "Malformed", seeds=[*seeds, (one, other)])
    if seeds:
        tell("a seed altered", "Verification", seeds=[(seeds[0][0], flipped(seeds[0][1]))])
        tell("a seed left out", "Malformed", seeds=[])
        dropped = seeds[0][0]
        rows.from_site("a reveal of who dropped", dropped, "closed", "reveal", early, "WrongStage")
    rows.from_site("a reveal twice", who, "revealed", "reveal", early, "Replay")
    failing_complaints(rows, (who, reveals[1]), read["context"])
    return rows.rows


def failing_complaints(rows: Rows, sites: tuple[str, str], context: bytes) -> None:
    """Complaints of shares that nobody was sent, or out of turn."""
    who, dealer = sites

    def complain(what: str, after: str, error: str, **change: Any) -> None:
        body = message("complaint", {"context": context, "dealer": dealer} | change)
        rows.from_site(what, who, after, "complaint", body, error)

    complain("a complaint while collecting", "open", "WrongStage")
    complain("a complaint of its own share", "closed", "Malformed", dealer=who)
    complain("a complaint of a stranger", "closed", "Malformed", dealer="evil")
    complain("a complaint in another context", "closed", "Verification", context=bytes(32))
    complain("a complaint after its reveal", "revealed", "Replay")


def failing_unfit(document: Document) -> list[Document]:
    """After an unfit: no further try in this attempt, and no finer one."""
    rows, me = Rows(document), "site-0"
    ((name, size, exponent),) = document_tensors(rows)

    def plan(what: str, error: str, **change: Any) -> None:
        rows.add(what, me, "upload", "invitation", rows.invitation(me, change), error)

    plan("the attempt that did not fit, again", "Replay")
    finer = [(name, size, exponent + 1)]
    plan("a finer attempt than did not fit", "PolicyRefused", attempt=2, tensors=finer)
    plan("a smaller largest weight", "PolicyRefused", attempt=2, max_weight=512)
    return rows.rows


def failing_all(document: Document) -> list[Document]:
    return failing_reveals(document) + failing_sums(document)


def failing_links(document: Document) -> list[Document]:
    """In a hybrid epoch: announcements and encapsulations that lie."""
    rows, me = Rows(document), "site-2"
    bodies = [bytes.fromhex(row["announcement"]) for row in document["sites"].values()]
    good = fields_of("invitation", rows.invitation(me, {}))["encapsulations"]

    def seal(what: str, error: str, encapsulations: list[bytes]) -> None:
        body = rows.invitation(me, {}, encapsulations=encapsulations)
        rows.add(what, me, "link", "invitation", body, error)

    def again(signer: str, **change: Any) -> bytes:
        fields = fields_of("encapsulation", good[0]) | change
        body = message("encapsulation", fields, without="signature")
        fields["signature"] = signed(identity_seed(signer), "encapsulation", body)
        return message("encapsulation", fields)

    early = rows.invitation(me, {})
    rows.add("a plan before the link", me, "announce", "invitation", early, "WrongStage")
    links = message("link request", {"announcements": bodies})
    said = bytes.fromhex(document["links"][me]["message"])
    rows.answered("a second link", me, "link", ("link request", links), said)
    fewer = message("link request", {"announcements": bodies[1:]})
    rows.add("another second link", me, "link", "link request", fewer, "WrongStage")
    weak = announcement_of(document, "site-0", {"mlkem": b""}, "site-0")
    links = message("link request", {"announcements": [weak, *bodies[1:]]})
    rows.add("a plain key in a hybrid epoch", me, "announce", "link request", links, "Verification")
    bad = announcement_of(document, "site-2", {"mlkem": bytes([255]) * 1184}, "site-2")
    links = message("link request", {"announcements": [*bodies[:2], bad]})
    rows.add("no ML-KEM key", "site-1", "announce", "link request", links, "Verification")
    seal("an encapsulation left out", "NotAMember", good[1:])
    seal("an encapsulation twice", "Malformed", [good[0], *good])
    seal("an encapsulation altered", "Verification", [flipped(good[0], 200), *good[1:]])
    seal("an encapsulation signed by another", "Verification", [again("site-1"), *good[1:]])
    seal("one for another site", "Verification", [again("site-0", receiver="site-1"), *good[1:]])
    seal("one of another epoch", "Verification", [again("site-0", binding=bytes(32)), *good[1:]])
    seal("one of the site itself", "Verification", [again("site-2", sender="site-2"), *good[1:]])
    seal("one of a stranger", "Verification", [again("evil", sender="evil"), *good[1:]])
    seal("an encapsulation cut off", "Malformed", [good[0][:-1], *good[1:]])
    return rows.rows
