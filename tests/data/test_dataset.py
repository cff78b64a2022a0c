"""The published layout and the older `.dt`: against golden data, and damaged in every way that has its own message."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmmt_deploy.architecture import PlmKind
from fmmt_deploy.data.dataset import read_data
from fmmt_deploy.data.text import DialogueTokenizer, text_windows, tokenizer_json
from fmmt_deploy.errors import DataError
from fmmt_deploy.types import DataSet, Utterance
from tests.data.published import VISION_ONLY, architecture, copy_published, edit_csv, edit_json, edit_pickle
from tests.golden import GOLDEN

Edit = Callable[[Any], object]


def utterances(data: DataSet) -> list[Utterance]:
    return [utterance for dialogue in data.dialogues for utterance in dialogue.utterances]


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_published_files_read_to_their_arrays(kind: PlmKind) -> None:
    root = GOLDEN / kind
    data = read_data(root, "test", architecture(kind))
    folder = root / "preprocess_data/T+A+V"
    audio = pickle.loads((folder / "meld_test_audio_utt.pkl").read_bytes())["test"]
    vision = pickle.loads((folder / "meld_test_vision_utt.pkl").read_bytes())["test"]
    listed = json.loads((folder / "test_facseqs_160_paths_final.json").read_text())
    assert data.order == tuple(listed)
    for index, utterance in enumerate(utterances(data)):
        assert utterance.id == data.order[index]
        np.testing.assert_array_equal(utterance.audio, audio["audio"][index])
        np.testing.assert_array_equal(utterance.vision, vision["vision"][index])
        assert utterance.audio_length == audio["audio_utt_mask"][index].sum()
        assert utterance.vision_length == vision["vision_utt_mask"][index].sum()
        assert utterance.label == audio["labels"][index]
        assert utterance.faces == tuple(root / path for path in listed[utterance.id][:6])


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_the_dt_reads_to_the_same_as_the_pickles(kind: PlmKind) -> None:
    root = GOLDEN / kind
    new = read_data(root, "test", architecture(kind))
    old = read_data(next(root.rglob("*.dt")), "test", architecture(kind), faces_dir=root)
    tokenizer = DialogueTokenizer(tokenizer_json(root / f"pretrained_model/{kind}-large", kind), kind)
    assert old.order == new.order
    for ours, theirs in zip(new.dialogues, old.dialogues, strict=True):
        assert ours.id == theirs.id
        (window,), (other,) = text_windows(ours, tokenizer, 38), text_windows(theirs, None, 38)
        np.testing.assert_array_equal(window.input_ids, other.input_ids)
        assert window.spans == other.spans
    for one, two in zip(utterances(new), utterances(old), strict=True):
        np.testing.assert_array_equal(one.audio, two.audio)
        np.testing.assert_array_equal(one.vision, two.vision)
        fields = ("id", "position", "label", "faces", "audio_length", "vision_length")
        assert [getattr(one, name) for name in fields] == [getattr(two, name) for name in fields]


def test_a_folder_with_only_a_dt(tmp_path: Path) -> None:
    root = copy_published(tmp_path / "x", with_dt=True)
    expected = read_data(root, "test", architecture())
    for path in root.rglob("*.pkl"):
        path.unlink()
    found = read_data(root, "test", architecture())
    assert found.order == expected.order
    assert [u.faces for u in utterances(found)] == [u.faces for u in utterances(expected)]
    assert [u.label for u in utterances(read_data(root, "test", VISION_ONLY))] == [
        u.label for u in utterances(expected)
    ]
    edit_csv(root, lambda rows: rows[0].update(Emotion="fear"))
    with pytest.raises(DataError, match="label of dia0_utt0 is"):
        read_data(root, "test", architecture())


@pytest.mark.parametrize("left", ["everything", "no profile", "no csv", "no folder V", "only features"])
def test_a_vision_model_needs_only_vision(tmp_path: Path, left: str) -> None:
    root = copy_published(tmp_path / "x")
    expected = [u.label for u in utterances(read_data(root, "test", architecture()))]
    away = {
        "no profile": ["test_utt_profile.json"],
        "no csv": ["test_sent_emo.csv"],
        "no folder V": ["V/meld_test_vision_utt.pkl"],
        "only features": ["test_utt_profile.json", "test_sent_emo.csv", "T+A+V/meld_test_vision_utt.pkl"],
    }
    for name in away.get(left, []):
        next(root.rglob(name)).unlink()
    for name in ("test_text.json", "meld_test_audio_utt.pkl", "test_facseqs_160_paths_final.json"):
        next(root.rglob(name)).unlink()
    data = read_data(root, "test", VISION_ONLY)
    assert [u.label for u in utterances(data)] == expected
    assert data.order[:2] == (("utt0", "utt1") if left == "only features" else ("dia0_utt0", "dia0_utt1"))


def test_the_validation_split_is_called_dev_in_the_csv(tmp_path: Path) -> None:
    root = copy_published(tmp_path / "x")
    for path in [*root.rglob("*test*")]:
        name = path.name.replace("test", "dev" if path.suffix == ".csv" else "val")
        path.rename(path.with_name(name))
    for path in root.rglob("*.pkl"):
        path.write_bytes(pickle.dumps({"val": pickle.loads(path.read_bytes())["test"]}))
    assert len(read_data(root, "val", architecture()).order) == 31
    with pytest.raises(DataError, match="no test split"):
        read_data(root, "test", architecture())


def test_an_utterance_without_features_stays_in_its_dialogue_or_not(tmp_path: Path) -> None:
    root = copy_published(tmp_path / "x")
    new = {"Dialogue_ID": "0", "Utterance_ID": "9", "Emotion": "joy"}
    edit_csv(root, lambda rows: rows.insert(4, rows[0] | new))
    edit_json(root, "test_text.json", lambda texts: texts.update(dia0_utt9={"txt": ["Not in the features."]}))
    assert len(read_data(root, "test", architecture()).dialogues[0].texts) == 4
    edit_json(
        root, "test_utt_profile.json", lambda profile: [profile[str(i)].__setitem__(3, 5) for i in range(4)] and None
    )
    dialogue = read_data(root, "test", architecture()).dialogues[0]
    assert dialogue.texts[4] == "Not in the features."
    assert len(dialogue.utterances) == 4


def test_utterance_ids_may_have_gaps_and_hours_one_digit(tmp_path: Path) -> None:
    root = copy_published(tmp_path / "x")

    def renamed(text: str) -> str:
        return text.replace("dia0_utt3", "dia0_utt7")

    for path in root.rglob("*.json"):
        path.write_text(renamed(path.read_text()))
    edit_csv(root, lambda rows: rows[3].update(Utterance_ID="7", StartTime="0:00:00,000"))
    for path in (root / "faces").glob("dia0_utt3_*"):
        path.rename(path.with_name(renamed(path.name)))
    last = read_data(root, "test", architecture()).dialogues[0].utterances[3]
    assert (last.id, last.position) == ("dia0_utt7", 3)


def test_an_utterance_may_have_no_face(tmp_path: Path) -> None:
    root = copy_published(tmp_path / "x")
    edit_json(root, "test_facseqs_160_paths_final.json", lambda faces: faces.update(dia0_utt1=[]))
    edit_pickle(
        root,
        "meld_test_vision_utt.pkl",
        lambda arrays: (arrays["vision"][1].fill(0), arrays["vision_utt_mask"][1].fill(0)),
    )
    second = utterances(read_data(root, "test", architecture()))[1]
    assert (second.faces, second.vision_length) == ((), 0)


def test_faces_that_were_moved(tmp_path: Path) -> None:
    root = copy_published(tmp_path / "x")
    edit_json(
        root,
        "test_facseqs_160_paths_final.json",
        lambda listed: {name: [f"/home/someone/data/{path}" for path in paths] for name, paths in listed.items()},
    )
    with pytest.raises(DataError, match=r"face /home/someone\S+ of dia0_utt0 is not there"):
        read_data(root, "test", architecture())
    for place in (root / "faces", root):
        first = utterances(read_data(root, "test", architecture(), faces_dir=place))[0]
        assert first.faces[0] == root / "faces/dia0_utt0_0.jpg"
    with pytest.raises(DataError, match="is not there, nor under"):
        read_data(root, "test", architecture(), faces_dir=tmp_path / "none")


def test_symbolic_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    root = copy_published(tmp_path / "x")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "data").symlink_to(root)
    (linked / "loop").symlink_to(linked)
    assert len(read_data(linked, "test", architecture(), faces_dir=root).order) == 31


def test_two_files_of_a_name_are_an_ambiguity_that_names_both(tmp_path: Path) -> None:
    root = copy_published(tmp_path / "x")
    (root / "again").mkdir()
    shutil.copy(root / "meld/test_text.json", root / "again")
    with pytest.raises(DataError, match=r"again/test_text\.json and \S+meld/test_text\.json"):
        read_data(root, "test", architecture())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"audio_length": 15}, r"\(31, 15, 24\).*has \(31, 14, 24\)"),
        ({"audio_size": 768}, r"\(31, 14, 768\).*has \(31, 14, 24\)"),
        ({"vision_length": 5}, r"\(31, 5, 16\).*has \(31, 6, 16\)"),
        ({"vision_size": 512}, r"\(31, 6, 512\).*has \(31, 6, 16\)"),
    ],
)
def test_sizes_must_be_the_models(sizes: dict[str, int], message: str) -> None:
    for path in (GOLDEN / "roberta", next((GOLDEN / "roberta").rglob("*.dt"))):
        with pytest.raises(DataError, match=message):
            read_data(path, "test", architecture(**sizes))


@pytest.mark.parametrize(
    "name",
    [
        "test_sent_emo.csv",
        "test_text.json",
        "test_utt_profile.json",
        "test_facseqs_160_paths_final.json",
        "meld_test_audio_utt.pkl",
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    root = copy_published(tmp_path / "x")
    next(root.rglob(name)).unlink()
    with pytest.raises(DataError, match=f"has no file {name}"):
        read_data(root, "test", architecture())


def set_number(arrays: dict[str, Any], kind: str, place: tuple[int, ...], number: float) -> None:
    arrays[kind][place] = number


JSON_CASES: list[tuple[str, Edit, str]] = [
    ("test_text.json", lambda v: v.pop("dia1_utt2"), "test_text.json has no dia1_utt2"),
    ("test_text.json", lambda v: v.update(dia1_utt2={"txt": ["a", "b"]}), "dia1_utt2 is not"),
    ("test_text.json", lambda v: v.update(dia1_utt2={"txt": ["\ud800"]}), "not valid JSON"),
    ("test_text.json", lambda v: [v], "not a JSON object"),
    ("test_facseqs_160_paths_final.json", lambda v: v.pop("dia1_utt2"), "no faces listed for dia1_utt2"),
    (
        "test_facseqs_160_paths_final.json",
        lambda v: v["dia1_utt1"].pop(),
        "dia1_utt1 has 4 faces and .* 5",
    ),
    ("test_facseqs_160_paths_final.json", lambda v: v.update(dia1_utt2="x"), "dia1_utt2 has no list"),
    ("test_facseqs_160_paths_final.json", lambda v: v["dia1_utt2"].insert(0, "no.jpg"), "no.jpg of dia1_utt2"),
    ("test_utt_profile.json", lambda v: v.pop("3"), "entry 3 of 30"),
    ("test_utt_profile.json", lambda v: v["3"].pop(), "entry 3 of 31"),
    ("test_utt_profile.json", lambda v: v["3"].__setitem__(4, 4), "entry 3 of 31"),
    ("test_utt_profile.json", lambda v: v["3"].__setitem__(0, "dia0_utt2"), "has dia0_utt2 twice"),
    ("test_utt_profile.json", lambda v: v["3"].__setitem__(4, 2), "has turn 2 of dia0 twice"),
    ("test_utt_profile.json", lambda v: v["3"].__setitem__(2, 1), "two rows or lengths"),
    ("test_utt_profile.json", lambda v: v.pop("30"), "should be an array|should have the shape"),
    (
        "test_utt_profile.json",
        lambda v: (v["2"].__setitem__(4, 3), v["3"].__setitem__(4, 2)),
        "dia0_utt2 should be turn 3 of 4 of dia0",
    ),
]


@pytest.mark.parametrize(("name", "change", "message"), JSON_CASES)
def test_damaged_json(tmp_path: Path, name: str, change: Edit, message: str) -> None:
    root = copy_published(tmp_path / "x")
    edit_json(root, name, lambda value: [value] if change(value) == [value] else None)
    with pytest.raises(DataError, match=message):
        read_data(root, "test", architecture())


PICKLE_CASES: list[tuple[str, Edit, str]] = [
    ("audio", lambda v: set_number(v, "audio", (5, 0, 3), np.nan), "audio of dia1_utt1 has a number that is NaN"),
    ("vision", lambda v: set_number(v, "vision", (5, 0, 3), np.inf), "vision of dia1_utt1 has a number that is NaN"),
    ("audio", lambda v: set_number(v, "audio", (5, 13, 3), 1), "audio of dia1_utt1 has rows that its mask leaves out"),
    ("audio", lambda v: set_number(v, "audio_utt_mask", (5, 0), 0), "audio mask of dia1_utt1 is not ones followed"),
    ("vision", lambda v: set_number(v, "vision_utt_mask", (5, 0), 2), "vision mask of dia1_utt1 is not ones followed"),
    ("audio", lambda v: v.update(audio=v["audio"][:-1]), r"\(31, 14, 24\).*has \(30, 14, 24\)"),
    ("vision", lambda v: v.update(vision_utt_mask=v["vision_utt_mask"][:, :-1]), r"\(31, 6\).*has \(31, 5\)"),
    ("audio", lambda v: v.update(audio=v["audio"].astype(int)), "is of type int64"),
    ("audio", lambda v: v.update(audio=[1]), "is a list"),
    ("audio", lambda v: v.pop("audio"), "has no audio or no audio_utt_mask"),
    ("audio", lambda v: set_number(v, "labels", (5,), 7), "unknown label 7"),
    ("vision", lambda v: set_number(v, "labels", (5,), -1), "unknown label -1"),
    ("vision", lambda v: v.update(labels=(v["labels"] + 1) % 7), "label of dia0_utt0 is 4 in .* and 5 in meld_test_v"),
    ("vision", lambda v: v.update(labels=v["labels"].astype(str)), "labels should be an array of numbers"),
    ("vision", lambda v: v.update(vision=v["vision"].astype(np.float64) * 1e60), "NaN or infinite"),
    ("audio", lambda v: v.update(path=Path("x")), "refused to make or call: pathlib"),
]


@pytest.mark.parametrize(("kind", "change", "message"), PICKLE_CASES)
def test_damaged_features(tmp_path: Path, kind: str, change: Edit, message: str) -> None:
    root = copy_published(tmp_path / "x")
    path = edit_pickle(root, f"meld_test_{kind}_utt.pkl", change)
    with pytest.raises(DataError, match=message) as caught:
        read_data(root, "test", architecture())
    assert path.name in str(caught.value)


CSV_CASES: list[tuple[Edit, str]] = [
    (lambda rows: rows[5].update(Emotion="bored"), r"test_sent_emo.csv, line 7: unknown label 'bored'\nKnown: neutral"),
    (lambda rows: rows[5].update(Emotion="fear" if rows[5]["Emotion"] != "fear" else "joy"), "label of dia1_utt1"),
    (lambda rows: rows.pop(5), "test_sent_emo.csv has no dia1_utt1"),
    (lambda rows: rows.append(rows[5]), "has dia1_utt1 twice"),
    (lambda rows: rows[5].update(Utterance_ID="x"), "line 7: 'x' is not the number"),
    (lambda rows: rows.insert(0, rows.pop(1)), "should be turn 0 of 4 of dia0"),
]


@pytest.mark.parametrize(("change", "message"), CSV_CASES)
def test_damaged_csv(tmp_path: Path, change: Edit, message: str) -> None:
    root = copy_published(tmp_path / "x")
    edit_csv(root, change)
    with pytest.raises(DataError, match=message):
        read_data(root, "test", architecture())


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no column Emotion"), (b"\xff\xfe", "as UTF-8"), (b'Emotion,Dialogue_ID,Utterance_ID\n"x"y,', "not a CSV")],
)
def test_a_csv_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    root = copy_published(tmp_path / "x")
    (root / "meld/test_sent_emo.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_data(root, "test", architecture())


def test_a_key_that_stands_twice_in_json(tmp_path: Path) -> None:
    root = copy_published(tmp_path / "x")
    (root / "meld/test_text.json").write_text('{"a": {"txt": ["x"]}, "a": {"txt": ["y"]}}')
    with pytest.raises(DataError, match=r"test_text.json is not valid JSON\nthe key 'a' stands twice"):
        read_data(root, "test", architecture())


def test_an_utterance_that_says_nothing_at_all(tmp_path: Path) -> None:
    root = copy_published(tmp_path / "x")
    edit_json(root, "test_facseqs_160_paths_final.json", lambda faces: faces.update(dia0_utt1=[]))
    edit_json(root, "test_text.json", lambda texts: texts.update(dia0_utt1={"txt": [" "]}))
    for kind in ("vision", "audio"):
        edit_pickle(
            root,
            f"meld_test_{kind}_utt.pkl",
            lambda arrays, kind=kind: (arrays[kind][1].fill(0), arrays[f"{kind}_utt_mask"][1].fill(0)),
        )
    with pytest.raises(DataError, match="dia0_utt1 has nothing the model could read"):
        read_data(root, "test", architecture())


@pytest.mark.parametrize(("file", "model"), [("bert", "roberta"), ("roberta", "bert")])
def test_a_dt_of_the_other_language_model(file: PlmKind, model: PlmKind) -> None:
    with pytest.raises(DataError, match=r"separated as roberta needs it|vocabulary ends at 292"):
        read_data(next((GOLDEN / file).rglob("*.dt")), "test", architecture(model), GOLDEN / file)


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        read_data(tmp_path / "none", "test", architecture())
    with pytest.raises(DataError, match="holds no test split"):
        read_data(tmp_path, "test", architecture())
    (tmp_path / "x.dt").write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match="not a pickled data set"):
        read_data(tmp_path / "x.dt", "test", architecture())
    (tmp_path / "x.dt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(DataError, match="no attribute utt_profile"):
        read_data(tmp_path / "x.dt", "test", architecture())
