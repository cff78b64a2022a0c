"""Bundles with receipts of the agreed shapes, as a full-size model's would be; figures are made up."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.receipts.record import Hashed, Receipt, Setting
from fmmt_deploy.receipts.store import append_receipt
from fmmt_deploy.types import EMOTIONS
from tests.bundle.samples import FULL, make_bundle
from tests.report.bench_sample import bench

SUPPORT = (1256, 281, 50, 208, 402, 68, 345)
DEVICE = {
    "system": "Linux 6.1.0",
    "machine": "x86_64",
    "cpu": "AMD EPYC 9J14",
    "cores": 16,
    "memory_bytes": 137_438_953_472,
    "gpus": [{"name": "NVIDIA H200", "memory_mib": 143771, "driver": "570.1", "compute_capability": "9.0"}],
}
TOOLS = {"python": "3.11.7", "fmmt-deploy": "0.1.0", "numpy": "2.3.4", "onnxruntime": "1.23.2", "torch": "2.9.0"}
F1 = (0.8013, 0.5963, 0.1918, 0.4199, 0.6488, 0.1818, 0.5600)
CODES = {"failed": 4, "DIFFERENT": 5, "INCONCLUSIVE": 5, "INVALID": 7}
"""What commands that found so end with."""
Json = dict[str, Any]


def interval(low: float, high: float) -> Json:
    return {"low": low, "high": high, "confidence": 0.9}


def equivalence(verdict: str = "EQUIVALENT", difference: float = -0.0002, half: float = 0.0009) -> Json:
    low, high = difference - half, difference + half
    flips = [[0] * 7 for _ in range(7)]
    for i, n in enumerate((1251, 270, 31, 190, 398, 40, 421)):
        flips[i][i] = n
    flips[0][4], flips[0][6], flips[6][0], flips[2][3], flips[1][0] = 3, 2, 2, 1, 1
    return {
        "utterances": 2610,
        "dialogues": 280,
        "margin": 0.005,
        "alpha": 0.05,
        "reference_f1": 0.6673,
        "f1": 0.6673 + difference,
        "difference": difference,
        "interval": interval(low, high),
        "verdict": verdict,
        "words": f"{verdict} at a margin of 0.5 points: the engine's weighted F1 is {66.73 + 100 * difference:.2f}, "
        f"the reference's 66.73, a difference of {100 * difference:+.2f} points (90 % interval {100 * low:+.2f} to "
        f"{100 * high:+.2f}, resampling 280 dialogues). 9 of 2,610 decisions changed.",
        "detectable": 0.0021,
        "passing_margin": max(abs(low), abs(high)),
        "changed": 9,
        "ties": 1,
        "flips": flips,
        "mcnemar": {"only_reference_right": 4, "only_candidate_right": 3, "p_value": 1.0},
        "classes": [
            {
                "emotion": emotion,
                "support": support,
                "reference_f1": f1,
                "f1": f1 + shift,
                "difference": shift,
                "interval": interval(shift - 0.4 / support, shift + 0.45 / support),
            }
            for emotion, support, f1, shift in zip(
                EMOTIONS, SUPPORT, F1, (-0.0003, 0.001, 0.0, -0.002, 0.0004, 0.0, -0.0006), strict=True
            )
        ],
        "changed_decisions": [
            {
                "utterance": f"dia{17 * i}_utt{i}",
                "label": EMOTIONS[i % 7],
                "reference": EMOTIONS[(i + i % 2) % 7],
                "decision": EMOTIONS[(i + 1 - i % 2) % 7],
                "reference_probability": 0.41,
                "probability": 0.4,
                "margin": 0.0123 * (i + 1),
            }
            for i in range(9)
        ],
    }


def evaluation(f1: float = 0.6671) -> Json:
    confusion = [[0] * 7 for _ in range(7)]
    for i, (n, share) in enumerate(zip(SUPPORT, F1, strict=True)):
        right = round(n * share)
        rest = n - right
        confusion[i] = [rest // 9] * 7
        confusion[i][i] = right
        confusion[i][0 if i else 4] += rest - 6 * (rest // 9)
    return {
        "utterances": 2610,
        "weighted_f1": f1,
        "macro_f1": 0.486,
        "accuracy": 0.68,
        "classes": [
            {"emotion": e, "precision": f, "recall": f, "f1": f, "support": n}
            for e, f, n in zip(EMOTIONS, F1, SUPPORT, strict=True)
        ],
        "confusion": confusion,
    }


def edge(name: str, count: int, crossed: int, face: int | None) -> Json:
    edges = [0.0, *(10 ** (x / 2) for x in range(-12, 3))]
    counts = [0, 0, 0, 1, 2, 6, 19, 60, 189, 598, 900, 530, 205, 90, 10]
    return {
        "name": name,
        "count": count,
        "error": {"p50": 8.1e-5, "p99": 9.4e-4, "largest": 3.1e-3},
        "near": 11,
        "within_largest": 28,
        "crossed": crossed,
        "expected": 7.4,
        "histogram": {"edges": edges, "counts": counts},
        "items": [
            {"utterance": f"dia{i}_utt{i}", "face": face, "reference_margin": 1e-4 * (i + 1), "margin": -2e-4 * (i + 1)}
            for i in range(crossed)
        ],
    }


def audit() -> Json:
    return {
        "gate": edge("gate", 131_072, 3, 2),
        "decision": edge("decision", 2610, 9, None),
        "f1": {"difference": -0.0002, "through_the_gate": -0.0001, "elsewhere": -0.0001, "gate_utterances": 3},
    }


def swaps() -> Json:
    sides = ("reference", "engine")
    rows = [
        {
            "swin": sides[i >> 2 & 1],
            "plm": sides[i >> 1 & 1],
            "fusion": sides[i & 1],
            "f1": 0.6673 + d,
            "difference": d,
            "changed": abs(round(40_000 * d)) + (i > 0),
            "error": 1e-5 * i,
        }
        for i, d in enumerate((0.0, 0.0001, -0.0003, -0.0003, 0.0001, 0.0001, -0.0002, -0.0002))
    ]
    return {
        "rows": rows,
        "shares": {"swin": 0.0001, "plm": -0.0003, "fusion": 0.0},
        "intervals": {name: interval(-0.0008, 0.0004) for name in ("swin", "plm", "fusion")},
        "changed_shares": {"swin": 2.5, "plm": 5.5, "fusion": 1.0},
        "error_shares": {"swin": 0.2, "plm": 0.7, "fusion": 0.1},
        "words": "Most of the difference comes from plm, but all of it is too small to be told from chance.",
    }


def evaluated(verdict: str = "EQUIVALENT", difference: float = -0.0002, half: float = 0.0009) -> Json:
    judged = {
        "mode": "none",
        "seeds": [],
        "evaluation": evaluation(),
        "spread": None,
        "reference_evaluation": evaluation(0.6673),
        "band": None,
        "equivalence": equivalence(verdict, difference, half),
        "audit": audit(),
    }
    return {
        "schema": "fmmt.eval/2",
        "bundle": "bundle",
        "engine": "trt",
        "precisions": {"swin": "fp16", "plm": "fp16", "fusion": "fp16"},
        "reference": "torch",
        "data": {"source": "MELD", "split": "test", "sha256": "cd" * 32, "utterances": 2610, "dialogues": 280},
        "warnings": [],
        "margin": 0.005,
        "modes": [judged],
        "swaps": swaps(),
        "verdict": verdict,
        "receipt": None,
    }


def noisy(published: float | None = 0.6673) -> Json:
    """An evaluation over five seeds of the noise."""
    document = evaluated()
    (mode,) = document["modes"]
    values = (0.6654, 0.6673, 0.6649, 0.6662, 0.6668)
    band = {
        "seeds": 5,
        "mean": 0.66612,
        "deviation": 0.00098,
        "lowest": 0.6649,
        "highest": 0.6673,
        "low": 0.6631,
        "high": 0.6691,
        "confidence": 0.95,
        "values": values,
        "engine_values": [value - 0.0002 for value in values],
        "engine_mean": 0.66592,
        "passed": True,
        "published": published,
        "published_inside": True,
        "words": "Over 5 seeds of the noise the reference's weighted F1 is 66.61 on average.",
    }
    seeded = mode | {"mode": "seeded", "seeds": [0, 1, 2, 3, 4], "band": band}
    document["modes"] = [seeded, mode | {"mode": "mean", "seeds": [0, 1, 2, 3, 4]}]
    return document


def tensor(name: str, largest: float, atol: float, passed: bool = True) -> Json:
    return {
        "name": name,
        "tolerance": {"atol": atol, "rtol": 0.002, "reason": "twice what was measured"},
        "failure": "" if passed else f"largest error {largest}",
        "elements": 123_456,
        "max_abs": largest,
        "mean_abs": largest / 40,
        "relative_norm": 1.4e-4,
        "max_relative": 0.02,
        "cosine": 0.99999,
        "needed_atol": largest,
        "worst_index": [3, 1],
        "worst_reference": 0.8,
        "worst_actual": 0.8,
        "nan_count": 0,
        "inf_count": 0,
        "passed": passed,
    }


def parity(passed: bool = True) -> Json:
    decisions = {"utterances": 24, "changed": [], "ties": [], "kept_changed": [], "failures": [], "passed": True}
    tensors = (("swin", "face_logits", 4e-3), ("plm", "token_states", 2.1e-3), ("fusion", "logits", 9e-4))
    stages = [{"name": g, "passed": True, "tensors": [tensor(t, e, 1e-2)], "decisions": None} for g, t, e in tensors]
    last = tensor("logits", 1.4e-3 if passed else 0.08, 5e-3, passed)
    stages.append({"name": "end to end", "passed": passed, "tensors": [last], "decisions": decisions})
    return {
        "schema": "fmmt.parity/1",
        "data": "self-test",
        "engine": "trt fp16",
        "reference": "torch fp32",
        "passed": passed,
        "worst": {"stage": "end to end", "tensor": "logits"},
        "stages": stages,
    }


def cast(bundle: Bundle) -> Json:
    shares = {"swin": 0.99998, "plm": 0.999, "fusion": 0.9712}
    return {
        "schema": "fmmt.cast/1",
        "graphs": [
            {
                "graph": graph,
                "precision": "fp16",
                "file": bundle.manifest.graphs[graph]["fp32"],
                "flops_share": {"fp16": share, "fp32": 1 - share},
            }
            for graph, share in shares.items()
        ],
    }


def settings(**values: object) -> dict[str, Setting]:
    return {name: Setting(value, "command line" if value else "default") for name, value in values.items()}


def receipt(command: str, result: Mapping[str, object], **fields: Any) -> Receipt:
    base = Receipt(command=command, seconds=12.34, created="2026-11-23T09:00:00+00:00", tools=TOOLS, device=DEVICE)
    return replace(base, result=result, **fields)


def judged_bundle(path: Path, **planted: Any) -> Bundle:
    """A bundle whose engine `trt` in fp16 was compared, scored and timed; see `leave_receipts`."""
    bundle = make_bundle(path, architecture=FULL)
    leave_receipts(bundle, **planted)
    return bundle


def leave_receipts(
    bundle: Bundle,
    *,
    verdict: str = "EQUIVALENT",
    difference: float = -0.0002,
    half: float = 0.0009,
    parity_passed: bool = True,
    evaluation_document: Json | None = None,
    bench_document: Json | None = None,
) -> None:
    """Leaves the receipts of export, cast, parity, eval and bench in a bundle, in that order."""
    files = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    of = settings(engine="trt", precision="fp16")
    data = {"data": Hashed("cd" * 32, "MELD, test")}
    scored, timed = evaluation_document or evaluated(verdict, difference, half), bench_document or bench()
    for command, result, word, fields in (
        ("export", {}, "", {"inputs": {"multimodal.pt": Hashed("ab" * 32, "checkpoint")}}),
        ("cast", cast(bundle), "", {"settings": settings(precision="fp16"), "outputs": files}),
        ("parity", parity(parity_passed), "passed" if parity_passed else "failed", {"settings": of, "subjects": files}),
        ("eval", scored, scored["verdict"] or "", {"settings": of, "subjects": files, "inputs": data}),
        ("bench", timed, "VALID" if timed["valid"] else "INVALID", {"subjects": files}),
    ):
        append_receipt(bundle, receipt(command, result, verdict=word, exit_code=CODES.get(word, 0), **fields))
