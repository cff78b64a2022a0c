"""What calls must read at least."""

import numpy as np

from fmmt_deploy.benchmark.calls import Call, moved_bytes


def test_weights_are_read_once_a_call_and_inputs_each_time() -> None:
    one = Call("swin", {"faces": np.zeros((3, 4), np.float32)}, {}, None)
    two = Call("swin", {"faces": np.zeros((1, 4), np.uint8)}, {}, None)
    assert moved_bytes([one, two], weights=1000) == 2 * 1000 + 48 + 4
    assert moved_bytes([], weights=1000) == 0
