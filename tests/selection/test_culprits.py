"""Finding culprits, against planted ones and trying all subsets."""

import math
from collections.abc import Sequence
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from fmmt_deploy.selection.culprits import culprits_of


class Court:
    """Holds if one of the sets of culprits is kept back; counts questions."""

    def __init__(self, *enough: set[int]) -> None:
        self.enough, self.questions = enough, 0

    def holds(self, kept: Sequence[int]) -> bool:
        self.questions += 1
        assert len(set(kept)) == len(kept)
        return any(culprits <= set(kept) for culprits in self.enough)


@given(st.integers(1, 300), st.data())
def test_all_culprits_are_found_with_few_questions(number: int, data: st.DataObject) -> None:
    culprits = data.draw(st.sets(st.integers(0, number - 1), min_size=1, max_size=6))
    court = Court(culprits)
    assert culprits_of(range(number), court.holds) == tuple(sorted(culprits))
    k = len(culprits)
    assert court.questions <= 2 * k * math.log2(number / k) + 2 * k + 2


@given(st.integers(2, 8), st.data())
def test_none_too_many(number: int, data: st.DataObject) -> None:
    """Where several sets would do, one is found of which nothing can be left out; all subsets are tried."""
    some = st.sets(st.integers(0, number - 1), min_size=1)
    court = Court(*data.draw(st.lists(some, min_size=1, max_size=4)))
    found = culprits_of(range(number), court.holds)
    assert court.holds(found)
    assert not any(court.holds(fewer) for size in range(len(found)) for fewer in combinations(found, size))


def test_those_that_come_first_are_preferred() -> None:
    assert culprits_of([5, 6, 7, 8], Court({6}, {8}).holds) == (6,)


@given(st.integers(1, 12), st.data())
def test_what_is_found_holds_even_if_more_can_be_worse(number: int, data: st.DataObject) -> None:
    """Any sets at all hold, besides that of all."""
    enough = {frozenset(each) for each in data.draw(st.lists(st.sets(st.integers(0, number - 1)), max_size=40))}
    enough = (enough | {frozenset(range(number))}) - {frozenset()}
    assert frozenset(culprits_of(range(number), lambda kept: frozenset(kept) in enough)) in enough
