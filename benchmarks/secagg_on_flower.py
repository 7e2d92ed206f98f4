"""Runs in the peers' environment: Flower's SecAgg+ functions and CKKS, one cell a line of input.

Reads ``{"work": "secagg+"|"ckks", "sites": n, "size": d, "dropped": k}``, answers CPU seconds of
one site and of the coordinator, bytes of one site's upload, and the error of the mean.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

CLIP, LEVELS, MODULUS, MAX_WEIGHT = 8.0, 1 << 22, 1 << 32, 1000.0
COORDINATOR = 0
TRUE_VECTORS = 16
"""Above so many sites only three mask real vectors; the coordinator's work is the same."""


class SecAggPlus:
    """One round of SecAgg+ through Flower's own functions, all sites neighbours of all.

    The coordinator's steps follow `SecAggPlusWorkflow`, without the network.
    """

    def __init__(self, sites: int, size: int, dropped: int) -> None:
        # The package exports a function under the module's name.
        self.mod = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
        rng = np.random.default_rng(7)
        self.states = {nid: self.mod.SecAggPlusState() for nid in range(1, sites + 1)}
        self.spent = dict.fromkeys([0, *self.states], 0.0)
        self.alive = [nid for nid in self.states if nid > dropped]
        self.real = self.alive if sites <= TRUE_VECTORS else self.alive[:3]
        self.keys: dict[str, list[bytes]] = {}
        self.packets: dict[int, list[tuple[int, bytes]]] = {nid: [] for nid in self.states}
        self.vectors = {nid: rng.normal(0, 0.1, size).astype(np.float32) for nid in self.real}
        self.weights = {nid: int(rng.integers(10, 500)) for nid in self.states}
        self.threshold = max(2, round(len(self.alive) * 0.9))

    def run(self) -> dict[str, Any]:
        """What it cost."""
        self._share_keys()
        replies = self._collect()
        with self._on(COORDINATOR):
            total = self._summed(replies)
        shares = self._reveal()
        with self._on(COORDINATOR):
            mean = self._unmasked(total, shares)
        upload = sum(len(item) for item in replies[self.real[0]])
        site = float(np.median([self.spent[nid] for nid in self.real]))
        return {
            "site_s": site,
            "coordinator_s": self.spent[COORDINATOR],
            "bytes": upload,
            "error": self._error(mean),
        }

    def _share_keys(self) -> None:
        setup = {
            "sample_num": len(self.states),
            "share_num": len(self.states),
            "threshold": self.threshold,
            "clipping_range": CLIP,
            "target_range": LEVELS,
            "mod_range": MODULUS,
            "max_weight": MAX_WEIGHT,
        }
        for nid, state in self.states.items():
            state.nid = nid
            with self._on(nid):
                reply = self.mod._setup(state, setup)
            self.keys[str(nid)] = [reply["pk1"], reply["pk2"]]
        for nid, state in self.states.items():
            with self._on(nid):
                reply = self.mod._share_keys(state, dict(self.keys))
            for target, packet in zip(reply["dsts"], reply["ctxts"], strict=True):
                self.packets[target].append((nid, packet))

    def _collect(self) -> dict[int, list[bytes]]:
        from flwr.common import ndarrays_to_parameters  # noqa: PLC0415 - peers only

        replies = {}
        for nid in self.real:
            sources, packets = zip(*self.packets[nid], strict=True)
            config = {"ctxts": list(packets), "srcs": list(sources)}
            given = ndarrays_to_parameters([self.vectors[nid]])
            with self._on(nid):
                reply = self.mod._collect_masked_vectors(
                    self.states[nid], config, self.weights[nid], given
                )
            replies[nid] = reply["masked_params"]
        for nid in self.alive[len(self.real) :]:
            # What a site holds after unpacking its shares; its vector is as good as any other.
            for source, packet in self.packets[nid]:
                plain = self.mod.decrypt(self.states[nid].ss2_dict[source], packet)
                _, _, seed, key = self.mod.share_keys_plaintext_separate(plain)
                self.states[nid].rd_seed_share_dict[source] = seed
                self.states[nid].sk1_share_dict[source] = key
            replies[nid] = replies[self.real[0]]
        return replies

    def _summed(self, replies: dict[int, list[bytes]]) -> list[Any]:
        from flwr.common import bytes_to_ndarray  # noqa: PLC0415 - peers only

        total: list[Any] = []
        for nid in self.alive:
            vector = [bytes_to_ndarray(item) for item in replies[nid]]
            total = self.mod.parameters_addition(total, vector) if total else vector
        reduced: list[Any] = self.mod.parameters_mod(total, MODULUS)
        return reduced

    def _reveal(self) -> dict[int, list[bytes]]:
        shares: dict[int, list[bytes]] = {nid: [] for nid in self.states}
        dead = [nid for nid in self.states if nid not in self.alive]
        for nid in self.alive:
            with self._on(nid):
                reply = self.mod._unmask(
                    self.states[nid], {"active_nids": self.alive, "dead_nids": dead}
                )
            for owner, share in zip(reply["nids"], reply["shares"], strict=True):
                shares[owner].append(share)
        return shares

    def _unmasked(self, total: list[Any], shares: dict[int, list[bytes]]) -> Any:  # noqa: ANN401 - an array
        arithmetic = importlib.import_module("flwr.common.secure_aggregation.ndarrays_arithmetic")
        quantization = importlib.import_module("flwr.common.secure_aggregation.quantization")
        shamir = importlib.import_module("flwr.common.secure_aggregation.crypto.shamir")
        for nid, found in shares.items():
            secret = shamir.combine_shares(found)
            if nid in self.alive:
                total = self.mod.parameters_subtraction(total, self._mask(secret, total))
                continue
            for neighbour in shares:
                if neighbour != nid:
                    total = self._without_pair(total, secret, (nid, neighbour))
        ratio, vectors = arithmetic.factor_extract(self.mod.parameters_mod(total, MODULUS))
        (vector,) = quantization.dequantize(vectors, CLIP, LEVELS)
        return (vector - (len(self.alive) - 1) * CLIP) * (LEVELS / (ratio or 1))

    def _without_pair(self, total: list[Any], secret: bytes, pair: tuple[int, int]) -> list[Any]:
        nid, neighbour = pair
        key = self.mod.generate_shared_key(
            self.mod.bytes_to_private_key(secret),
            self.mod.bytes_to_public_key(self.keys[str(neighbour)][0]),
        )
        change = (
            self.mod.parameters_addition if nid > neighbour else self.mod.parameters_subtraction
        )
        changed: list[Any] = change(total, self._mask(key, total))
        return changed

    def _mask(self, seed: bytes, like: list[Any]) -> Any:  # noqa: ANN401 - arrays
        return self.mod.pseudo_rand_gen(seed, MODULUS, [item.shape for item in like])

    def _error(self, mean: Any) -> float | None:  # noqa: ANN401 - an array
        if self.real != self.alive:
            return None
        weight = sum(self.weights[nid] for nid in self.alive)
        true = (
            sum(self.vectors[nid].astype(np.float64) * self.weights[nid] for nid in self.alive)
            / weight
        )
        return float(np.linalg.norm(mean - true) / np.linalg.norm(true))

    @contextlib.contextmanager
    def _on(self, nid: int) -> Iterator[None]:
        """Counts CPU seconds on somebody's account."""
        began = time.process_time()
        try:
            yield
        finally:
            self.spent[nid] += time.process_time() - began


def secagg_plus(sites: int, size: int, dropped: int) -> dict[str, Any]:
    """One round of SecAgg+."""
    return SecAggPlus(sites, size, dropped).run()


def ckks(sites: int, size: int, dropped: int) -> dict[str, Any]:
    """A weighted sum under CKKS at the parameters that FLARE documents, one key for all sites."""
    import tenseal as ts  # noqa: PLC0415 - peers only

    context = ts.context(
        ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40]
    )
    context.global_scale = 2**40
    rng = np.random.default_rng(7)
    vectors = [rng.normal(0, 0.1, size) for _ in range(sites - dropped)]
    block, site_s, coordinator_s, upload = 4096, [], 0.0, 0
    sums: list[Any] = []
    for vector in vectors:
        began = time.process_time()
        sealed = [
            ts.ckks_vector(context, vector[start : start + block]).serialize()
            for start in range(0, size, block)
        ]
        site_s.append(time.process_time() - began)
        upload = sum(map(len, sealed))
        began = time.process_time()
        opened = [ts.ckks_vector_from(context, item) for item in sealed]
        sums = opened if not sums else [a + b for a, b in zip(sums, opened, strict=True)]
        coordinator_s += time.process_time() - began
    began = time.process_time()
    mean = np.concatenate([item.decrypt() for item in sums]) / len(vectors)
    decrypting = time.process_time() - began
    error = float(np.linalg.norm(mean - np.mean(vectors, axis=0)) / np.linalg.norm(mean))
    return {
        "site_s": float(np.median(site_s)) + decrypting,
        "coordinator_s": coordinator_s,
        "bytes": upload,
        "error": error,
    }


def main() -> None:
    """Answers a line for each line."""
    logging.disable(logging.CRITICAL)
    names = {"secagg+": "flwr", "ckks": "tenseal"}
    for line in sys.stdin:
        cell = json.loads(line)
        work = cell.pop("work")
        try:
            found = (secagg_plus if work == "secagg+" else ckks)(**cell)
            found["version"] = importlib.metadata.version(names[work])
        except ImportError as error:
            found = {"missing": str(error)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
