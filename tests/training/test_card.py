"""The model card of a run says what is true of it, and all that it should."""

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template

import pytest

from fmmt_deploy.errors import EnvironmentProblem
from fmmt_deploy.evaluation.evaluation import over_seeds
from fmmt_deploy.evaluation.significance import Interval
from fmmt_deploy.reference.loading import save_checkpoint
from fmmt_deploy.training.ablation import Ablation, Left
from fmmt_deploy.training.card import card_of, write_card
from fmmt_deploy.training.card_facts import CardFacts, card_facts, data_of_split
from fmmt_deploy.training.jsonl_log import JsonlLog
from fmmt_deploy.training.preparing import Prepared, Request, prepare
from fmmt_deploy.training.recipes import effective_from_toml
from fmmt_deploy.training.run import Outcome, SplitScores
from fmmt_deploy.types import EMOTIONS
from tests.training.made import SETTINGS, make_data
from tests.training.records import epoch, scores

ABLATION = Ablation(
    "/somewhere/meld",
    "none",
    0,
    210,
    21,
    0.61,
    (
        Left("text", 209, 1, 0.61, 0.31, -0.30, Interval(-0.35, -0.25, 0.95)),
        Left("audio", 210, 0, 0.61, 0.60, -0.01, Interval(-0.02, 0.01, 0.95)),
    ),
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    data = make_data(tmp_path_factory.mktemp("card") / "talk_shows")
    effective = effective_from_toml("", "made.toml", SETTINGS)
    out = data.parent / "my|run"
    return prepare(Request(effective, data, out, data / "affwild2", data / "plm", from_scratch=True, device="cpu"))


@pytest.fixture(scope="module")
def outcome(prepared: Prepared) -> Outcome:
    """Of a training that was not made, but whose folder is there."""
    folder = prepared.request.out
    save_checkpoint(prepared.start.model, folder / "best")
    log = JsonlLog(folder / "log.jsonl", prepared.request.settings)
    for number in (1, 2, 3):
        log.epoch(replace(epoch(number), seconds=3700.0))
    log.close()
    noisy = over_seeds([scores(0.6, seed=seed) for seed in range(5)])
    found = {"val": SplitScores(scores(0.8), noisy), "test": SplitScores(scores(0.7, 17, seed=9), noisy)}
    notes = (*prepared.notes, "/home/somebody/talk_shows: 12 faces; <left out>")
    return Outcome(folder, folder / "best", 2, 3, True, found, notes)


@pytest.fixture(scope="module")
def facts(prepared: Prepared, outcome: Outcome) -> CardFacts:
    return card_facts(prepared, replace(outcome, ablation=ABLATION))


def rows_of(text: str, section: str) -> list[list[str]]:
    """Cells of the tables of a section."""
    (found,) = re.findall(rf"^##+ {section}$(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found.splitlines() if line[:1] == "|"]


def test_every_placeholder_is_filled(facts: CardFacts) -> None:
    template = files("fmmt_deploy.training").joinpath("model_card.md").read_text(encoding="utf-8")
    wanted = set(Template(template).get_identifiers())
    assert len(wanted) == template.count("${") == 19
    text = card_of(facts)
    assert "$" not in text
    assert "None" not in text
    assert "\n\n\n" not in text
    headings = re.findall("^## (.*)$", text, re.MULTILINE)
    assert headings[:3] == ["Model details", "Intended use", "Factors"]
    assert len(headings) == 10


def test_the_data_are_counted(facts: CardFacts, prepared: Prepared) -> None:
    """Against the data set's own lines."""
    rows = {row[0]: row[1:] for row in rows_of(card_of(facts), "Data")}
    for split in ("train", "val", "test"):
        dialogues = [json.loads(line) for line in (prepared.request.data / f"{split}.jsonl").read_text().splitlines()]
        counts = Counter(u["label"] for dialogue in dialogues for u in dialogue["utterances"])
        assert rows[split][:9] == [*map(str, (len(dialogues), counts.total(), *(counts[name] for name in EMOTIONS)))]
        assert re.fullmatch(r"`[0-9a-f]{16}…`", rows[split][9])
    assert len({rows[split][9] for split in ("train", "val", "test")}) == 3
    assert prepared.faces is not None
    assert rows["faces (affwild2)"][:2] == ["–", str(len(prepared.faces.frames.paths))]


def test_a_digest_is_of_contents(prepared: Prepared) -> None:
    """Neither ids nor order nor paths change it; a feature does."""
    train = prepared.train
    renamed = replace(
        train,
        source="elsewhere",
        dialogues=tuple(
            replace(d, id=f"x{d.id}", utterances=tuple(replace(u, id=f"x{u.id}") for u in d.utterances))
            for d in reversed(train.dialogues)
        ),
    )
    assert data_of_split("train", renamed).digest == data_of_split("train", train).digest
    first = train.dialogues[0]
    assert first.utterances[0].audio is not None
    louder = replace(first.utterances[0], audio=first.utterances[0].audio * 2)
    changed = replace(first, utterances=(louder, *first.utterances[1:]))
    assert (
        data_of_split("train", replace(train, dialogues=(changed, *train.dialogues[1:]))).digest
        != data_of_split("train", train).digest
    )


def test_the_run_is_told(facts: CardFacts, prepared: Prepared, outcome: Outcome) -> None:
    text = card_of(facts)
    assert "3 epochs, then stopped because none was better; epoch 2 was the best" in text
    assert "It took 3.1 hours, in one process on CPU" in text
    assert f"SHA-256 `{sha256((outcome.best / 'model.safetensors').read_bytes()).hexdigest()}`" in text
    for name, digest in prepared.start.sha256.items():
        assert f"* `{name}`, SHA-256 `{digest}`" in text
    assert "face probabilities: 1.0; a face is used above a confidence of 0.2." in text
    settings = {row[0]: row[1:] for row in rows_of(text, "Training")}
    assert settings["target.batch_size"] == ["4", "--set"]
    assert settings["target.warm_up"] == ["0.1", "default"]
    assert settings["model.swin.depths"][0] == "[1, 1, 1, 1]"
    model = prepared.start.model
    sizes = {row[0]: row[1] for row in rows_of(text, "Model details")}
    assert sizes["fusion"] == f"{sum(p.numel() for p in model.fusion.parameters()):,}"


def test_results_are_those_of_the_evaluation(facts: CardFacts, outcome: Outcome) -> None:
    text = card_of(facts)
    for split, found in outcome.scores.items():
        assert found.gumbel is not None
        rows = {row[0]: row[1:] for row in rows_of(text, f"{split} split")[:11]}
        joy, noisy = found.plain.classes[4], found.gumbel["f1/joy"]
        numbers = [f"{100 * x:.2f}" for x in (joy.precision, joy.recall, joy.f1)]
        assert rows["joy"] == [*numbers, f"{100 * noisy.mean:.2f} ± {100 * noisy.deviation:.2f}", str(joy.support)]
        assert rows["**weighted F1**"][2] == f"**{100 * found.plain.weighted_f1:.2f}**"
        macro = sum(each.f1 for each in found.plain.classes) / 7
        assert split == "val" or abs(macro - found.plain.weighted_f1) > 1e-3, "emotions are not equally frequent"
        assert rows["**macro F1**"][2] == f"**{100 * macro:.2f}**"
        assert "under noise (5 seeds)" in rows["emotion"]
        assert rows_of(text, f"{split} split")[-1] == ["anger", *map(str, found.plain.confusion[6])]


def test_the_ablation_is_told_where_there_is_one(facts: CardFacts) -> None:
    text = card_of(facts)
    rows = {row[0]: row[1:] for row in rows_of(text, "What each source is worth")}
    assert rows["without text"] == ["31.00", "-30.00", "-35.00 to -25.00", "209"]
    assert "because nothing was left of them: 1 utterances without text." in text
    assert "Not measured in this run" in card_of(replace(facts, ablation=None))


def test_what_cant_be_said_is_not_said(facts: CardFacts) -> None:
    """A vision-only model, without a test split, with fair numbers of all emotions."""
    assert "It reads later turns too" in card_of(facts)
    plain = {"val": replace(facts.scores["val"], gumbel=None)}
    data = [replace(each, counts=(100,) * 7) for each in facts.data]
    unimodal = replace(facts.architecture, modality="V", plm=None, fusion=None, swin=None)
    text = card_of(
        replace(facts, architecture=unimodal, scores=plain, data=data, notes=(), starting={}, stopped_early=False)
    )
    assert "There is no randomness in its answers." in text
    assert "There was no labelled test split" in text
    assert "Nothing was left out." in text
    assert "every part began with random weights" in text
    for absent in ("later turns", "few cases of some", "stopped because"):
        assert absent not in text


def test_a_model_of_past_turns_can_answer_live(facts: CardFacts) -> None:
    text = card_of(replace(facts, architecture=replace(facts.architecture, context="past")))
    assert "reads the conversation up to the utterance, so that it can answer live" in text
    assert "It reads later turns too" not in text
    assert "reads the whole conversation, also what is said later" in card_of(facts)


@pytest.mark.parametrize(
    ("seconds", "said"), [(85.4, "85 s"), (100, "2 minutes"), (7140, "119 minutes"), (7200, "2.0 hours")]
)
def test_time_is_told_as_people_do(facts: CardFacts, seconds: float, said: str) -> None:
    assert f"It took {said}, in one process" in card_of(replace(facts, seconds=seconds))


def test_processes_are_those_that_trained(
    prepared: Prepared, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    assert ", in 3 processes on CPU" in card_of(card_facts(prepared, outcome))


def test_no_folder_of_this_machine_is_named(facts: CardFacts, prepared: Prepared) -> None:
    text = card_of(facts)
    assert str(prepared.request.data.parent) not in text
    assert "/home/somebody" not in text
    assert "/somewhere" not in text
    assert "* talk_shows: 12 faces; \\<left out>" in text
    assert "# Model card: my\\|run" in text
    assert facts.day <= datetime.now(UTC).date()


def test_it_is_written_beside_the_checkpoint_too(facts: CardFacts, outcome: Outcome, tmp_path: Path) -> None:
    write_card(outcome.folder, facts)
    assert (outcome.folder / "model-card.md").read_text(encoding="utf-8") == card_of(facts)
    assert (outcome.best / "model-card.md").read_text(encoding="utf-8") == card_of(facts)
    (tmp_path / "model-card.md").mkdir()
    with pytest.raises(EnvironmentProblem, match="can't be written"):
        write_card(tmp_path, facts)
    assert [path.name for path in tmp_path.iterdir()] == ["model-card.md"]
