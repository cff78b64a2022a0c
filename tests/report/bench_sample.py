"""A document of `fmmt bench --json`, `fmmt.bench/2`, with made-up figures of a full-size model on a GPU."""

from typing import Any

import numpy as np

Json = dict[str, Any]
PARTS = (("swin", 11.2, 95.7), ("plm", 1.1, 8.5), ("fusion", 1.9, 27.6))


def validity(*reasons: str) -> Json:
    return {"valid": not reasons, "reasons": list(reasons), "unseen": [], "facts": {"steal_share": 0.01}}


def ratio(median: float) -> Json:
    numbers = {"median": median, "low": 0.96 * median, "high": 1.05 * median, "confidence": 0.95}
    return numbers | {"blocks": 12, "drift": 1.01, "valid": True, "reasons": []}


def percentile(percent: int, ms: float, claimed: bool = True) -> Json:
    bounds = {"low_ms": 0.97 * ms, "high_ms": 1.06 * ms if claimed else None, "confidence": 0.99}
    counts = {"samples": 480, "independent": 96, "needed": 44 if percent < 99 else 459}
    reasons = [] if claimed else [f"p{percent} needs at least 459 independent samples, there are 480 that count as 96"]
    return {"percent": percent, "ms": ms, **bounds, **counts, "valid": claimed, "reasons": reasons}


def single_stream(engine: str, way: str, middle: float, faster: float | None, *reasons: str) -> Json:
    samples = np.random.default_rng(round(middle)).lognormal(np.log(middle), 0.25, 480)
    counts, edges = np.histogram(samples, bins=24)
    p50, p90, p99 = np.percentile(samples, (50, 90, 99)).tolist()
    return {
        "engine": engine,
        "way": way,
        "cache": way == "cached",
        "scenario": "single-stream",
        "latency": {"samples": 480, "mean_ms": float(samples.mean())},
        "percentiles": [percentile(50, p50), percentile(90, p90), percentile(99, p99, claimed=False)],
        "claimed": "p90",
        "per_second": 1000 / float(samples.mean()),
        "distribution": {"edges_ms": edges.tolist(), "counts": counts.tolist()},
        "ratio": None if faster is None else ratio(faster),
        "valid": not reasons,
        "reasons": list(reasons),
    }


def offline(engine: str, way: str, rate: float, faster: float | None) -> Json:
    return {
        "engine": engine,
        "way": way,
        "cache": True,
        "scenario": "offline",
        "queries": 2610,
        "repetitions": 6,
        "per_second": {"median": rate, "lowest": 0.95 * rate, "highest": 1.03 * rate},
        "distribution": None,
        "ratio": None if faster is None else ratio(faster),
        "valid": True,
        "reasons": [],
    }


def server(engine: str) -> Json:
    return {
        "engine": engine,
        "way": "together",
        "cache": False,
        "scenario": "server",
        "limit_ms": 100.0,
        "percent": 99,
        "batch_size": 8,
        "rate_per_second": 61.5,
        "fails_at": 64.0,
        "runs": [],
        "ratio": None,
        "valid": True,
        "reasons": [],
    }


def call(engine: str, way: str, part: str, ms: float, gflop: float | None) -> Json:
    rate = None if gflop is None else 410_000.0
    return {
        "engine": engine,
        "way": way,
        "cache": way == "batched",
        "part": part,
        "ms": ms,
        "low_ms": 0.97 * ms,
        "high_ms": 1.1 * ms,
        "samples": 12,
        "gflop": gflop,
        "moved_bytes": None
        if gflop is None
        else {"swin": 2.1e8, "plm": 7.4e8, "fusion": 1.5e8}[part] * (1.0 if way == "alone" else 0.2),
        "precision": None if gflop is None else "fp16",
        "rate_gflops": rate,
        "share_of_rate": None if gflop is None or rate is None else gflop / ms * 1000 / rate,
        "valid": True,
        "reasons": [],
    }


def calls(factor: float) -> list[Json]:
    rows = []
    for engine, slower in (("torch", 3.0), ("trt:fp16", 1.0)):
        for way, times in (("alone", 2.0), ("batched", 1.0)):
            rows += [call(engine, way, part, factor * slower * times * ms, gflop) for part, ms, gflop in PARTS]
            rows.append(call(engine, way, "all", factor * slower * times * 14.0, None))
    return rows


def bench(*reasons: str) -> Json:
    stages = [
        {"engine": engine, "way": "batched", "stage": stage, "ms": slower * ms, "gflop": None, "share_of_rate": None}
        for engine, slower in (("torch", 3.0), ("trt:fp16", 1.0))
        for stage, ms in (("prepare", 4.2), ("swin", 11.4), ("plm", 1.2), ("fusion", 2.0))
    ]
    return {
        "schema": "fmmt.bench/2",
        "model": "bundle",
        "machine": {},
        "tools": {},
        "settings": {},
        "valid": not reasons,
        "reasons": list(reasons),
        "unseen": ["clocks of the processor: this system does not tell them"],
        "workloads": [
            {
                "workload": {
                    "source": "MELD",
                    "dialogues": 280,
                    "utterances": 2610,
                    "tokens": 37_520,
                    "faces": 26_100,
                    "sha256": "cd" * 32,
                },
                "rates": [
                    {"name": "cuda fp32", "gflops": 42_000.0, "gflops_range": [41_000.0, 42_500.0]},
                    {"name": "cuda fp16", "gflops": 410_000.0, "gflops_range": [400_000.0, 415_000.0]},
                ],
                "copy_gb_per_s": 3900.0,
                "device": {"says": "", "absent": {}, "validity": validity(), "rows": calls(0.1)},
                "engine": {"says": "", "absent": {"ort": "not asked for"}, "validity": validity(), "rows": calls(0.13)},
                "files": {
                    "says": "",
                    "single-stream": {
                        "baseline": "torch published",
                        "validity": validity(*reasons),
                        "rows": [
                            single_stream("torch", "published", 190.0, None, *reasons),
                            single_stream("torch", "alone", 88.0, 2.16, *reasons),
                            single_stream("trt:fp16", "alone", 21.0, 9.05, *reasons),
                            single_stream("trt:fp16", "cached", 17.0, 11.18, *reasons),
                        ],
                    },
                    "offline": {
                        "baseline": "torch published",
                        "validity": validity(),
                        "rows": [offline("torch", "published", 5.3, None), offline("trt:fp16", "batched", 92.0, 17.4)],
                    },
                    "server": {"baseline": "", "validity": validity(), "rows": [server("trt:fp16")]},
                    "stages": {"validity": validity(), "rows": stages},
                },
            }
        ],
        "cold_start": {
            "validity": validity(),
            "rows": [
                {
                    "engine": engine,
                    "open_ms": opened,
                    "first_ms": first,
                    "steady_ms": 20.0,
                    "peak_bytes": 2_000_000_000,
                    "gpu_bytes": 1_100_000_000,
                    "starts": [{}] * 3,
                    "valid": True,
                    "reasons": [],
                }
                for engine, opened, first in (("torch", 6100.0, 900.0), ("trt:fp16", 1400.0, 160.0))
            ],
        },
        "samples": None,
        "regression": None,
    }
