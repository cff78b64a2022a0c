"""What the made-up dialogues tell, and by what: a reader that makes no mistakes needs all of it."""

from itertools import pairwise

import pytest

from fmmt_deploy.demo.phrases import ECHOES, SENTENCES
from fmmt_deploy.demo.story import make_story, runs_of
from fmmt_deploy.types import EMOTIONS
from tests.demo.ideal import SOURCES, Source, best_f1

LEAST_WITH_ALL, LEAST_LOSS = 0.93, 0.08


@pytest.mark.parametrize("seed", [0, 1])
def test_all_sources_together_tell_nearly_everything(seed: int) -> None:
    assert best_f1(make_story("test", 64, 6, seed)) >= LEAST_WITH_ALL


@pytest.mark.parametrize("source", SOURCES)
def test_no_source_can_be_done_without(source: Source) -> None:
    story = make_story("test", 64, 6, seed=0)
    assert best_f1(story, [source]) <= best_f1(story) - LEAST_LOSS


def test_words_are_as_the_turn_says() -> None:
    """By the sentences themselves: a fragment without blanks to fill is enough to know one."""
    known = {
        fragment: EMOTIONS.index(emotion)
        for emotion, sentences in SENTENCES.items()
        for sentence in sentences
        for fragment in [max(sentence.replace("}", "{").split("{")[::2], key=len)]
    }
    for turn in (turn for turns in make_story("val", 24, 6, seed=0) for turn in turns):
        told = {label for fragment, label in known.items() if fragment in turn.text} - {0}
        assert told == ({turn.label} if turn.words_tell and not turn.echo else set()), turn
        assert (turn.text in ECHOES) == turn.echo
        assert turn.label or not (turn.words_tell or turn.voice_tells or turn.images_tell or turn.features_tell)


def test_an_echo_has_the_emotion_of_the_turn_before() -> None:
    pairs = [pair for turns in make_story("test", 64, 6, seed=0) for pair in pairwise(turns)]
    echoes = [(before, turn) for before, turn in pairs if turn.echo]
    assert len(echoes) > 20
    assert all(before.label == turn.label and before.words_tell for before, turn in echoes)
    assert not any(before.echo or turn.voice_tells or turn.images_tell for before, turn in echoes)
    assert {turn.label for _, turn in echoes} == set(range(1, 7))


def test_story_does_not_say_again_what_was_said() -> None:
    first = make_story("val", 24, 6, seed=0)
    said = frozenset().union(*map(runs_of, first))
    again = make_story("val", 24, 6, seed=0, said=said)
    assert said.isdisjoint(frozenset().union(*map(runs_of, again)))
    assert [len(turns) for turns in again] == [len(turns) for turns in first]


def test_story_has_the_oddities_of_real_data() -> None:
    turns = [turn for dialogue in make_story("test", 24, 6, seed=0) for turn in dialogue]
    counts = {turn.faces for turn in turns}
    assert {0, 1} < counts
    assert max(counts) > 6
    assert {turn.label for turn in turns} == set(range(7))
    assert sum(not turn.has_features for turn in turns) == 1
    second = [turn.utterance for turn in turns if turn.dialogue == 1]
    assert second == [0, 1, 3, 4, 5]
    assert all(not turn.images_tell for turn in turns if not turn.faces)
