"""The judge: what it finds against NumPy by hand and against the pipeline's own run of whole sets of engines."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fmmt_deploy.bundle.store import Bundle
from fmmt_deploy.engines.load import open_engines
from fmmt_deploy.engines.protocol import Array, Engine, Engines, Value
from fmmt_deploy.errors import DataError, FmmtError
from fmmt_deploy.pipeline.run import Pipeline
from fmmt_deploy.selection import cases as cases_module
from fmmt_deploy.selection.cases import DataCases
from fmmt_deploy.selection.judge import Judge, judge_from_bundle
from fmmt_deploy.selection.rules import EQUIVALENCE_RULES, EquivalenceRule
from fmmt_deploy.types import DataSet, GraphName, Utterance
from tests.parity.faults import Fault, FaultyEngine, Outputs, all_nan, flipped_mask, half_precision, one_nan, turned
from tests.pipeline.conversations import conversations, dataset, rows

Bundles = Callable[[str], Bundle]
ANYTHING = EquivalenceRule(1.0, 1.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return dataset(conversations(tmp_path_factory.mktemp("faces")))


@pytest.fixture(scope="module")
def reference(tiny_bundle: Bundles) -> Iterator[Engines]:
    with open_engines(tiny_bundle("roberta"), "torch", threads=1) as engines:
        yield engines


@pytest.fixture(scope="module")
def judge(tiny_bundle: Bundles, data: DataSet, reference: Engines) -> Judge:
    return judge_from_bundle(tiny_bundle("roberta"), data, reference, batch_size=3)


def faulty(reference: Engines, **faults: Fault) -> dict[GraphName, Engine]:
    return {graph: FaultyEngine(reference[graph], fault) for graph, fault in faults.items()}  # type: ignore[index, misc]


def shaken(outputs: Outputs) -> Outputs:
    """Enough noise to change some decisions and some faces, the same for the same output."""
    spoilt = dict(outputs)
    for name, array in outputs.items():
        if array.dtype.kind == "f":
            noise = np.random.default_rng(array.size).standard_normal(array.shape)
            spoilt[name] = (array + 0.3 * noise * array.std()).astype(np.float32)
    return spoilt


def test_it_finds_what_the_pipeline_finds(
    tiny_bundle: Bundles, data: DataSet, reference: Engines, judge: Judge
) -> None:
    """The whole model with a lowered graph, run as `fmmt run` runs it, is what the judge puts together from parts."""
    bundle = tiny_bundle("roberta")
    labels = {u.id: u.label for dialogue in data.dialogues for u in dialogue.utterances}
    right = {p.utterance: p for p in Pipeline(bundle, reference).run(data)}
    changed_at_all = kept_at_all = 0
    for replaced in (("swin",), ("plm",), ("fusion",), ("swin", "plm"), ("swin", "plm", "fusion")):
        lowered = faulty(reference, **dict.fromkeys(replaced, half_precision))
        engines = Engines("mixed", {g: lowered.get(g) or reference[g] for g in ("swin", "plm", "fusion")})
        found = {p.utterance: p for p in Pipeline(bundle, engines, batch_size=3).run(data)}
        judgement = judge.judge(lowered)
        logits, expected = (np.stack([run[u].logits for u in judge.utterances]) for run in (found, right))
        error = logits.astype(np.float64) - expected
        assert judgement.graphs == replaced
        assert judgement.utterances == len(data.order) == len(set(judge.utterances))
        assert judgement.sqnr_db == pytest.approx(10 * np.log10((expected**2).sum() / (error**2).sum()), abs=0.5)
        assert judgement.f1 is not None
        truth = [labels[u] for u in judge.utterances]
        scores = [f1_score(truth, run.argmax(1), average="weighted", zero_division=0) for run in (logits, expected)]
        assert judgement.f1.f1 == pytest.approx(scores[0])
        assert judgement.f1.difference == pytest.approx(scores[0] - scores[1])
        assert len(judgement.changed) + judgement.ties == (logits.argmax(1) != expected.argmax(1)).sum()
        changed_at_all += len(judgement.changed)
        kept_at_all += judgement.kept.changed if judgement.kept else 0
    assert (changed_at_all, kept_at_all) == (0, 0)  # half precision of outputs only is a small fault


def test_faces_near_the_gate(tiny_bundle: Bundles, data: DataSet, reference: Engines, judge: Judge) -> None:
    """The masks of whole runs, and the confidences by hand from the face logits."""
    bundle = tiny_bundle("roberta")
    spoilt = faulty(reference, swin=shaken)
    judgement = judge.judge(spoilt)
    assert judgement.kept is not None
    logits: list[list[Array]] = [[], []]
    changed = faces = 0
    for case in DataCases(Pipeline(bundle, reference, batch_size=3), data):
        if case.swin is None or case.plm is None:
            continue
        states = reference["plm"].run(case.plm)["token_states"]
        found = [
            engine.start(dict(case.swin), 8)["face_logits"].numpy() for engine in (reference["swin"], spoilt["swin"])
        ]
        kept = [
            reference["fusion"].run({**case.last, "token_states": states, "face_logits": rows})["kept"]
            for rows in found
        ]
        changed += int((kept[0] != kept[1]).sum())
        faces += len(found[0])
        for side, answers in zip(logits, found, strict=True):
            side.append(answers)
    shares = [np.exp(np.concatenate(side).astype(np.float64) / bundle.manifest.tau) for side in logits]
    sums = [((s / s.sum(1, keepdims=True)) ** 2).sum(1) for s in shares]
    error = np.abs(sums[1] - sums[0]).max()
    assert (judgement.kept.faces, judgement.kept.changed) == (faces, changed)
    assert changed > 0
    assert judgement.kept.largest_error == pytest.approx(error, rel=1e-4)
    assert judgement.kept.near == (np.abs(sums[0] - bundle.manifest.threshold) <= error).sum() > 0
    noise = np.concatenate(logits[1]).astype(np.float64) - np.concatenate(logits[0])
    expected = 10 * np.log10((np.concatenate(logits[0]).astype(np.float64) ** 2).sum() / (noise**2).sum())
    assert judgement.outputs_sqnr_db["swin"] == pytest.approx(expected, abs=0.01)


def test_a_graph_alone_costs_only_itself(tiny_bundle: Bundles, data: DataSet, reference: Engines) -> None:
    """Others answer from what is kept: each engine's runs are counted."""

    class Counting:
        runs: list[str] = []  # noqa: RUF012

        def __init__(self, graph: GraphName) -> None:
            self.graph, self.engine = graph, reference[graph]

        def __getattr__(self, name: str) -> object:
            if name in ("run", "start"):
                Counting.runs.append(self.graph)
            return getattr(self.engine, name)

    counted = Engines("counted", {g: Counting(g) for g in ("swin", "plm", "fusion")})  # type: ignore[misc]
    watched = judge_from_bundle(tiny_bundle("roberta"), data, counted, batch_size=3)
    first = list(Counting.runs)
    Counting.runs.clear()
    watched.judge({"plm": reference["plm"]})
    assert set(Counting.runs) == {"fusion"}
    assert Counting.runs.count("fusion") == first.count("fusion")
    assert first.count("plm") < first.count("fusion")  # a text of many utterances is encoded once


def test_answers_stand_for_the_engine(judge: Judge, reference: Engines) -> None:
    engines = faulty(reference, swin=shaken, plm=half_precision, fusion=half_precision)
    told = {graph: judge.answers(graph, engines[graph]) for graph in ("swin", "plm")}  # type: ignore[arg-type]
    for graph in ("swin", "plm"):
        assert judge.judge({graph: told[graph]}) == judge.judge({graph: engines[graph]})  # type: ignore[dict-item, index]
    assert judge.judge({**engines, **told}) == judge.judge(engines)  # type: ignore[dict-item]


def test_equal_engines(judge: Judge, reference: Engines) -> None:
    judgement = judge.judge({"swin": reference["swin"], "plm": reference["plm"], "fusion": reference["fusion"]})
    assert judgement.sqnr_db == judgement.outputs_sqnr_db["swin"] == judgement.outputs_sqnr_db["plm"] == np.inf
    assert (judgement.changed, judgement.ties, judgement.agreement, judgement.not_finite) == ((), 0, 1.0, "")
    assert judgement.f1 is not None
    assert judgement.kept is not None
    assert judgement.f1.interval is not None
    assert (judgement.f1.difference, judgement.f1.interval.low, judgement.f1.interval.high) == (0, 0, 0)
    assert (judgement.kept.changed, judgement.kept.near, judgement.kept.largest_error) == (0, 0, 0)
    assert judgement.problems(EQUIVALENCE_RULES["fp32"]) == ()
    assert judge.judge({}) == replace(judgement, graphs=(), outputs_sqnr_db={})


@pytest.mark.parametrize(
    ("graph", "what"), [("swin", "answers of swin"), ("plm", "answers of plm"), ("fusion", "logits")]
)
def test_nan_is_told_and_harmful(judge: Judge, reference: Engines, graph: str, what: str) -> None:
    judgement = judge.judge(faulty(reference, **{graph: one_nan}))
    assert what in judgement.not_finite
    assert "NaN" in judgement.not_finite
    assert judgement.f1 is None
    assert judgement.kept is None
    assert graph != "fusion" or np.isnan(judgement.sqnr_db)
    (problem,) = judgement.problems(ANYTHING)
    assert problem == judgement.not_finite


def test_nan_decides_nothing(judge: Judge, reference: Engines) -> None:
    judgement = judge.judge(faulty(reference, fusion=all_nan))
    assert (len(judgement.changed), judgement.ties, judgement.agreement) == (judgement.utterances, 0, 0)


def test_turned_decisions_are_harmful(tiny_bundle: Bundles, data: DataSet, reference: Engines) -> None:
    """On labels that are the reference's own decisions, its F1 is 1, and that of turned decisions 0."""
    decided = {p.utterance: int(p.logits.argmax()) for p in Pipeline(tiny_bundle("roberta"), reference).run(data)}
    dialogues = [
        replace(d, utterances=tuple(replace(u, label=decided[u.id]) for u in d.utterances)) for d in data.dialogues
    ]
    judge = judge_from_bundle(tiny_bundle("roberta"), dataset(dialogues), reference)
    judgement = judge.judge(faulty(reference, fusion=turned))
    assert len(judgement.changed) == judgement.utterances
    assert judgement.agreement == 0
    assert judgement.f1 is not None
    assert (judgement.f1.reference, judgement.f1.f1, judgement.f1.judged_difference) == (1, 0, -1)
    changed, dropped = judgement.problems(EQUIVALENCE_RULES["int8"])
    assert "decisions changed (100.00% > 2.00%)" in changed
    assert "F1 drops by 100.00 points (allowed 1.00)" in dropped
    assert judgement.problems(EquivalenceRule(1.0, 0.999)) == ("F1 drops by 100.00 points (allowed 99.90)",)
    assert judgement.problems(ANYTHING) == ()


def test_a_mask_without_reason_is_counted(judge: Judge, reference: Engines) -> None:
    judgement = judge.judge(faulty(reference, fusion=flipped_mask))
    assert judgement.kept is not None
    assert judgement.kept.changed > 0
    assert judgement.kept.near == 0  # the face logits are right


def test_ties_are_left_out(tiny_bundle: Bundles, data: DataSet, reference: Engines) -> None:
    """The reference's two best logits are made as good as equal in every second utterance; then all are turned."""

    def best_two(logits: Array) -> tuple[Array, Array, Array]:
        order = np.argsort(logits, axis=1)
        return np.arange(len(logits)), order[:, -1], order[:, -2]

    def close(outputs: Outputs) -> Outputs:
        logits = outputs["logits"]
        rows, first, second = best_two(logits)
        logits[rows, second] = logits[rows, first] - np.where(outputs["kept"].sum(axis=1) % 2, 1e-5, 0.1)
        return outputs

    def swapped(outputs: Outputs) -> Outputs:
        logits = outputs["logits"]
        rows, first, second = best_two(logits)
        logits[rows, first], logits[rows, second] = logits[rows, second], logits[rows, first]
        return outputs

    right = Engines("close", {g: reference[g] for g in ("swin", "plm")} | faulty(reference, fusion=close))
    judge = judge_from_bundle(tiny_bundle("roberta"), data, right)
    judgement = judge.judge({"fusion": FaultyEngine(right["fusion"], swapped)})
    odd = sum(len(p.kept_faces) % 2 for p in Pipeline(tiny_bundle("roberta"), reference).run(data))
    assert 0 < odd < judgement.utterances
    assert (judgement.ties, len(judgement.changed)) == (odd, judgement.utterances - odd)
    assert judgement.f1 is not None
    assert judgement.f1.judged_difference != judgement.f1.difference


def test_without_labels_there_is_no_f1(tiny_bundle: Bundles, data: DataSet, reference: Engines) -> None:
    first = data.dialogues[0]
    unlabelled = replace(first, utterances=(replace(first.utterances[0], label=None), *first.utterances[1:]))
    judge = judge_from_bundle(tiny_bundle("roberta"), dataset([unlabelled, *data.dialogues[1:3]]), reference)
    judgement = judge.judge(faulty(reference, fusion=turned))
    assert not judge.labelled
    assert judgement.f1 is None
    assert judgement.problems(EquivalenceRule(1.0, 0.0)) == ()  # F1 is unknown, not 0


def test_one_dialogue_has_no_interval(tiny_bundle: Bundles, data: DataSet, reference: Engines) -> None:
    judge = judge_from_bundle(tiny_bundle("roberta"), dataset(data.dialogues[:1]), reference)
    judgement = judge.judge({"plm": reference["plm"]})
    assert judgement.f1 is not None
    assert judgement.f1.interval is None


def unimodal_data(bundle: Bundle, folder: Path) -> DataSet:
    """The same conversations, with vision features of a unimodal model's size."""
    sizes = bundle.manifest.architecture.unimodal
    assert sizes is not None
    shape = (sizes.vision_length, sizes.vision_size)
    rng = np.random.default_rng(0)

    def seen(utterance: Utterance) -> Utterance:
        return replace(utterance, vision=rows(rng, utterance.vision_length, shape))

    return dataset([replace(d, utterances=tuple(map(seen, d.utterances))) for d in conversations(folder)])


def test_a_unimodal_model(tiny_bundle: Bundles, tmp_path: Path) -> None:
    bundle = tiny_bundle("unimodal")
    seen = unimodal_data(bundle, tmp_path)
    with open_engines(bundle, "torch", threads=1) as reference:
        judge = judge_from_bundle(bundle, seen, reference, batch_size=4)
        judgement = judge.judge(faulty(reference, unimodal=half_precision))
    assert judgement.utterances == len(seen.order)
    assert 60 < judgement.sqnr_db < 90  # 11 bits of mantissa
    assert judgement.kept is None


def test_nothing_to_judge(tiny_bundle: Bundles, reference: Engines) -> None:
    with pytest.raises(DataError, match="at least one utterance"):
        judge_from_bundle(tiny_bundle("roberta"), dataset([]), reference)


def test_a_reference_that_is_not_finite(tiny_bundle: Bundles, data: DataSet, reference: Engines) -> None:
    broken = Engines("broken", {g: reference[g] for g in ("swin", "plm")} | faulty(reference, fusion=one_nan))
    with pytest.raises(FmmtError, match="reference answers NaN"):
        judge_from_bundle(tiny_bundle("roberta"), dataset(data.dialogues[:1]), broken)


def test_faces_are_read_again_beyond_the_bound(
    tiny_bundle: Bundles, data: DataSet, reference: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    pipeline = Pipeline(tiny_bundle("roberta"), reference, batch_size=4)
    whole = pipeline.read
    monkeypatch.setattr(pipeline, "read", lambda members: reads.append(len(members)) or whole(members))

    def faces(cases: DataCases) -> list[Array]:
        return [case.swin["faces"] for case in cases if case.swin is not None]

    kept, again = DataCases(pipeline, data), DataCases(pipeline, data, keep_bytes=0)
    list(kept)
    assert not reads  # nobody asked for faces
    first = faces(kept)
    once = len(reads)
    assert all(np.array_equal(a, b) for a, b in zip(first, faces(kept), strict=True))
    assert len(reads) == once == len(first)
    assert all(np.array_equal(a, b) for a, b in zip(faces(again), faces(again), strict=True))
    assert len(reads) == 3 * once
    assert cases_module.KEPT_BYTES > 0


def test_questions_to_a_graph(judge: Judge, reference: Engines) -> None:
    for graph in ("swin", "plm", "fusion"):
        asked: list[Mapping[str, Value]] = list(judge.inputs_of(graph, 2))  # type: ignore[arg-type]
        assert len(asked) == 2
        for inputs in asked:
            assert reference[graph].run(inputs)  # type: ignore[index]
