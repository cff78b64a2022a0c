"""What a training writes down and shows; and that none of it can stop one."""

import io
import json
import math
import re
import resource
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event, SessionLog

from fmmt_deploy.errors import DataError
from fmmt_deploy.training.jsonl_log import JsonlLog, Kept, read_log
from fmmt_deploy.training.logs import LOG, TENSORBOARD, Watchers, kept_of, open_watcher
from fmmt_deploy.training.settings import Settings
from fmmt_deploy.training.state import Progress
from fmmt_deploy.training.tensorboard_log import TensorBoardLog
from fmmt_deploy.training.terminal import Terminal, text_of_epoch
from fmmt_deploy.training.watching import EpochRecord, StepRecord, Watcher
from tests.training.records import epoch, step, whole_run


def tell(watcher: Watcher, told: list[StepRecord | EpochRecord]) -> None:
    for record in told:
        if isinstance(record, StepRecord):
            watcher.step(record)
        else:
            watcher.epoch(record)


def events(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_has_every_step_and_epoch(tmp_path: Path) -> None:
    path, told = tmp_path / "log.jsonl", whole_run()
    log = JsonlLog(path, Settings())
    log.note("12 frames left out: not annotated (-1)")
    tell(log, told)
    assert len(events(path)) == 2 + len(told), "each line is there at once, before the log is closed"
    log.close()
    first = events(path)[0]
    assert (first["event"], first["schema"]) == ("start", "fmmt.training-log/1")
    assert first["settings"]["target"]["learning_rate"] == 7e-6
    found = read_log(path)
    assert list(found.steps) == [record for record in told if isinstance(record, StepRecord)]
    expected = [record for record in told if isinstance(record, EpochRecord)]
    for line, record in zip(found.epochs, expected, strict=True):
        assert (line.epoch, line.best, line.weighted_f1) == (record.epoch, record.best, record.validation.weighted_f1)
        assert (line.faces_loss, line.target_loss) == (record.faces_loss, record.target_loss)
        assert line.confusion == record.validation.confusion
    assert found.notes == ("12 frames left out: not annotated (-1)",)


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    """JSON has no infinity, which is what FP16's first gradients may have."""
    log = JsonlLog(tmp_path / "log.jsonl", Settings())
    log.step(replace(step("target", 1), gradient_norm=math.inf))
    log.epoch(replace(epoch(1), faces_loss=None))
    log.close()
    assert [line.get("gradient_norm", 0) for line in events(tmp_path / "log.jsonl")][1] is None
    found = read_log(tmp_path / "log.jsonl")
    assert math.isnan(found.steps[0].gradient_norm)
    assert found.epochs[0].faces_loss is None


@pytest.mark.parametrize("torn", [b"", b'{"event": "step", "pha', b"\x00\x00\x00\x00\n", b'{"event": "epoch"\n'])
def test_a_resumed_run_goes_on_from_where_it_was_saved(tmp_path: Path, torn: bytes) -> None:
    """Interrupted anywhere, the log ends up as that of a run that was not."""
    path, told = tmp_path / "log.jsonl", whole_run()
    log = JsonlLog(path, Settings())
    tell(log, told[:16])  # the second epoch's third target step was the last
    log.close()
    path.write_bytes(path.read_bytes() + torn)
    log = JsonlLog(path, Settings(), Kept({"faces": 8, "target": 6}, epochs=1))
    again = events(path)[-1]
    assert (again["event"], again["epochs"], again["steps"]) == ("resumed", 1, {"faces": 8, "target": 6})
    tell(log, told[15:])
    log.close()
    assert list(read_log(path).steps) == [record for record in told if isinstance(record, StepRecord)]
    assert [line.epoch for line in read_log(path).epochs] == [1, 2, 3]


@pytest.mark.parametrize(("epochs", "lines"), [(1, 1), (0, 0)])
def test_an_epoch_is_kept_only_where_its_validation_was_saved(tmp_path: Path, epochs: int, lines: int) -> None:
    log = JsonlLog(tmp_path / "log.jsonl", Settings())
    tell(log, whole_run()[:12])
    log.close()
    JsonlLog(tmp_path / "log.jsonl", Settings(), Kept({"faces": 4, "target": 4}, epochs)).close()
    found = read_log(tmp_path / "log.jsonl")
    assert (len(found.steps), len(found.epochs)) == (8, lines)


def test_a_new_run_has_a_new_log(tmp_path: Path) -> None:
    for _ in range(2):
        log = JsonlLog(tmp_path / "log.jsonl", Settings())
        tell(log, whole_run()[:3])
        log.close()
    assert [event["event"] for event in events(tmp_path / "log.jsonl")] == ["start", "step", "step", "step"]


def test_a_resumed_run_may_have_lost_its_log(tmp_path: Path) -> None:
    JsonlLog(tmp_path / "log.jsonl", Settings(), Kept({"faces": 0, "target": 6}, 1)).close()
    assert [event["event"] for event in events(tmp_path / "log.jsonl")] == ["start", "resumed"]


@pytest.mark.parametrize("text", ["[]\n", '{"event": "step", "phase": "target"}\n', "no json\n", "\xff\n"])
def test_other_files_are_no_logs(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.jsonl").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match="is not a training's log"):
        read_log(tmp_path / "log.jsonl")
    with pytest.raises(DataError, match="can't be read"):
        read_log(tmp_path / "none.jsonl")


@contextmanager
def full_disk(bytes_left: int, path: Path) -> Iterator[None]:
    """No file of this process grows beyond where `path` will be: what of a write fits is written, the rest refused."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Listener:
    """A watcher that remembers notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, _: StepRecord) -> None:
        self.steps += 1

    def epoch(self, _: EpochRecord) -> None: ...

    def close(self) -> None: ...


def test_a_full_disk_stops_nothing_and_is_said_once(tmp_path: Path) -> None:
    """The lines that did not fit are missing; those before and after are whole."""
    path, told, listener = tmp_path / "log.jsonl", whole_run(), Listener()
    watcher = Watchers([("log.jsonl", JsonlLog(path, Settings())), ("listener", listener)])
    tell(watcher, told[:3])
    with full_disk(250, path):
        tell(watcher, told[3:8])
    tell(watcher, told[8:])
    watcher.close()
    assert [note.split("(")[0] for note in listener.notes] == ["warning: log.jsonl can't be written "]
    assert listener.steps == 24
    expected = [record for record in told if isinstance(record, StepRecord)]
    assert list(read_log(path).steps) == [*expected[:4], *expected[8:]]


def test_all_are_closed_and_told_whatever_one_does() -> None:
    closed = []

    class Closing(Listener):
        def close(self) -> None:
            closed.append(self)
            raise OSError("no space")

    first, second = Closing(), Closing()
    Watchers([("a", first), ("b", second)]).close()
    assert closed == [first, second]
    assert first.notes == second.notes
    assert len(first.notes) == 2


def test_any_text_can_be_noted(tmp_path: Path) -> None:
    """Also a file's name that is no text at all, as Python reads it."""
    log = JsonlLog(tmp_path / "log.jsonl", Settings())
    log.note("gone: caf\udce9.jpg, é")
    log.close()
    assert read_log(tmp_path / "log.jsonl").notes == ("gone: caf\udce9.jpg, é",)


def test_a_log_that_cant_be_opened_is_said_and_done_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / LOG).mkdir()
    (tmp_path / TENSORBOARD).write_text("in the way")
    watcher = open_watcher(tmp_path, Settings())
    tell(watcher, whole_run())
    watcher.close()
    said = capsys.readouterr().err.splitlines()
    assert [line.split("(")[0] for line in said[:2]] == [
        "warning: log.jsonl can't be written ",
        "warning: tensorboard can't be written ",
    ]
    assert said[-1] == text_of_epoch(whole_run()[-1])  # type: ignore[arg-type]


def event_values(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would show of a run: a session that starts at a step takes back what was there from it on."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.session_log.status == SessionLog.START:
                found = {name: [(s, v) for s, v in points if s < event.step] for name, points in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_shows_a_resumed_run_as_one(tmp_path: Path) -> None:
    told = whole_run()
    log = TensorBoardLog(tmp_path)
    tell(log, told[:16])
    log.close()
    log = TensorBoardLog(tmp_path, Kept({"faces": 8, "target": 6}, epochs=1))
    tell(log, told[15:])
    log.close()
    for phase in ("faces", "target"):
        steps = [record for record in told if isinstance(record, StepRecord) and record.phase == phase]
        found = event_values(tmp_path / phase)
        for name in ("loss", "learning_rate", "gradient_norm"):
            assert found[name] == [(r.total, pytest.approx(getattr(r, name), rel=1e-6)) for r in steps]
        assert found["cases_per_second"][0] == (1, 32.0)
    epochs = [record for record in told if isinstance(record, EpochRecord)]
    found = event_values(tmp_path / "validation")
    assert found["weighted_f1"] == [(r.epoch, pytest.approx(r.validation.weighted_f1)) for r in epochs]
    for name in ("faces_loss", "target_loss"):
        assert found[name] == [(r.epoch, pytest.approx(getattr(r, name))) for r in epochs]
    assert found["f1/joy"] == [(r.epoch, pytest.approx(r.validation.classes[4].f1)) for r in epochs]


def test_an_epoch_can_be_seen_at_once(tmp_path: Path) -> None:
    """A run that is killed has shown TensorBoard its epochs; steps in between follow within seconds."""
    log = TensorBoardLog(tmp_path)
    tell(log, whole_run()[:9])
    assert len(event_values(tmp_path / "target")["loss"]) == 4
    assert len(event_values(tmp_path / "validation")["weighted_f1"]) == 1
    log.close()


def test_steps_are_written_out_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = TensorBoardLog(tmp_path)
    log.step(step("target", 1))
    assert "loss" not in event_values(tmp_path / "target")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 20)
    log.step(step("target", 2))
    assert len(event_values(tmp_path / "target")["loss"]) == 2
    log.close()


def test_a_run_resumed_within_a_second_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Event files are named by the second: a second one would be written over the first."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    for total in (1, 2):
        log = TensorBoardLog(tmp_path, Kept({"target": total - 1}, 0))
        log.step(step("target", total))
        log.close()
    assert [point[0] for point in event_values(tmp_path / "target")["loss"]] == [1, 2]


def test_a_run_without_faces_has_no_curve_of_them(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    tell(log, [step("target", 1), replace(epoch(1), faces_loss=None)])
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target", "validation"]
    assert "faces_loss" not in event_values(tmp_path / "validation")


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(Console, "is_terminal", True)
    shown = io.StringIO()
    terminal = Terminal(3, shown)
    tell(terminal, whole_run()[:10])
    terminal._bar.refresh()
    terminal.close()
    last = [line for line in re.sub("\x1b\\[[^A-Za-z]*[A-Za-z]", "", shown.getvalue()).split("\r") if "/s" in line][-1]
    best = 100 * epoch(1).validation.weighted_f1
    assert last.startswith("epoch 2/3 · faces")
    assert f"1/4 loss 0.4000 · best F1 {best:.2f} · 32.0/s" in last


def test_the_loss_shown_is_a_running_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the phase, from its first step on; the phase's last step is followed by validation."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(Console, "is_terminal", True)
    shown = io.StringIO()
    terminal = Terminal(3, shown)
    told = whole_run()[:8]
    tell(terminal, told)
    (bar,) = terminal._bar.tasks
    losses = [record.loss for record in told[4:] if isinstance(record, StepRecord)]
    mean = losses[0]
    for loss in losses[1:]:
        mean += (loss - mean) / 20
    assert bar.fields["figures"].startswith(f"loss {mean:.4f} · ")
    assert bar.description == "epoch 1/3 · validation"
    terminal.close()
    assert not terminal._bar.live.is_started


def test_the_best_f1_stays_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    terminal = Terminal(3, io.StringIO())
    tell(terminal, whole_run(worse=[2])[:20])
    assert f"best F1 {100 * epoch(1).validation.weighted_f1:.2f}" in terminal._bar.tasks[0].fields["figures"]
    terminal.close()


def test_elsewhere_only_lines_are_shown() -> None:
    shown = io.StringIO()
    terminal = Terminal(3, shown)
    terminal.note("resumed in epoch 1 [of 3]")
    tell(terminal, whole_run(worse=[2]))
    terminal.close()
    lines = shown.getvalue().splitlines()
    assert lines[0] == "resumed in epoch 1 [of 3]"
    assert lines[1].startswith("epoch 1/3: loss 1.0000, faces 1.5000, validation F1 ")
    assert lines[1].endswith("(the best so far), 12 s")
    assert lines[2].startswith("epoch 2/3: loss 0.5000, faces 0.7500")
    assert "best" not in lines[2]
    assert len(lines) == 4


def test_quiet_shows_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watcher = open_watcher(tmp_path, Settings(), quiet=True)
    tell(watcher, whole_run())
    watcher.close()
    assert capsys.readouterr() == ("", "")
    assert len(read_log(tmp_path / LOG).epochs) == 3
    assert (tmp_path / TENSORBOARD / "target").is_dir()


def test_a_resumed_run_is_watched_from_its_progress(tmp_path: Path) -> None:
    """Its state was written in the second epoch, and after the last."""
    told = whole_run()
    watcher = open_watcher(tmp_path, Settings(), quiet=True)
    tell(watcher, told[:20])
    watcher.close()
    progress = Progress(epoch=2, phase="target", step=3, faces_steps=8, target_steps=7)
    watcher = open_watcher(tmp_path, Settings(), progress, quiet=True)
    tell(watcher, told[16:])
    watcher.close()
    found = read_log(tmp_path / LOG)
    assert list(found.steps) == [record for record in told if isinstance(record, StepRecord)]
    assert [line.epoch for line in found.epochs] == [1, 2, 3]
    assert [point[0] for point in event_values(tmp_path / TENSORBOARD / "target")["loss"]] == list(range(1, 13))
    assert kept_of(progress) == Kept({"faces": 8, "target": 7}, 1)
    done = replace(progress, epoch=3, target_steps=12, faces_steps=12, finished=True)
    assert kept_of(done) == Kept({"faces": 12, "target": 12}, 3)
