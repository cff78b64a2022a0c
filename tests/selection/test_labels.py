"""Labels stand on nothing, as long as there is room."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fmmt_deploy.selection.labels import Box, placed_labels

FRAME = Box(0, 0, 200, 150)
WORD = (30.0, 9.0)


def boxes(points: list[tuple[float, float]], offsets: list[tuple[float, float]]) -> list[Box]:
    middles = [(x + dx, y + dy) for (x, y), (dx, dy) in zip(points, offsets, strict=True)]
    return [Box(x - 15, y - 4.5, x + 15, y + 4.5) for x, y in middles]


def test_alone_it_stands_to_the_right() -> None:
    assert placed_labels([(100, 75)], [WORD], FRAME) == [(22.0, 0.0)]


def test_at_the_right_edge_it_stands_to_the_left() -> None:
    ((dx, dy),) = placed_labels([(195, 75)], [WORD], FRAME)
    assert dx == -22.0
    assert abs(dy) < 1e-9


def test_points_in_one_place_have_labels_in_several() -> None:
    points = [(100.0, 75.0)] * 6
    placed = boxes(points, placed_labels(points, [WORD] * 6, FRAME))
    assert all(one.overlap(other) == 0 for i, one in enumerate(placed) for other in placed[:i])


@given(st.lists(st.tuples(st.floats(10, 190), st.floats(10, 140)), min_size=1, max_size=6))
@example([(126.0, 17.0), (186.0, 10.0), (186.0, 10.0), (186.0, 10.0)])  # the last finds room if one before it moves
@settings(max_examples=150, deadline=None)
def test_six_labels_cover_nothing(points: list[tuple[float, float]]) -> None:
    """Neither each other nor a point, and nothing is cut off."""
    placed = boxes(points, placed_labels(points, [WORD] * len(points), FRAME))
    marks = [Box(x - 3.9, y - 3.9, x + 3.9, y + 3.9) for x, y in points]
    for i, box in enumerate(placed):
        assert all(box.overlap(other) < 1 for other in (*placed[:i], *marks))
        assert box.outside(FRAME) < 1


def test_where_there_is_no_room_something_is_covered_and_nothing_fails() -> None:
    points = [(5.0, 5.0)] * 9
    assert len(placed_labels(points, [WORD] * 9, Box(0, 0, 31, 10))) == 9


def test_areas() -> None:
    one, other = Box(0, 0, 10, 10), Box(5, 5, 20, 20)
    assert (one.overlap(other), other.overlap(one), one.outside(other)) == (25, 25, 75)
    assert one.overlap(Box(11, 0, 12, 10)) == 0
