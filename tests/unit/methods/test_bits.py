import numpy as np
import pytest

from methods.synthesis.bits import action_codes, decode_bits


def test_codes_of_five_actions() -> None:
    assert action_codes(5).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert action_codes(1).tolist() == [[0]]


@pytest.mark.parametrize("n_actions", range(2, 65))
def test_decoding_a_code_is_the_identity(n_actions: int) -> None:
    bits = action_codes(n_actions)
    np.testing.assert_array_equal(decode_bits(bits, np.ones((n_actions, n_actions), dtype=bool)), np.arange(n_actions))


def test_unavailable_actions_are_never_decoded() -> None:
    available = np.array([[True, True, False, False, True]])
    # Nearest code to (0.1, 0.9, 0.2) is action 2 = (0, 1, 0), then 3 = (0, 1, 1): both forbidden.
    # Distances of the allowed: 0: .01+.81+.04 = .86; 1: .01+.81+.64 = 1.46; 4: .81+.81+.04 = 1.66.
    assert decode_bits(np.array([[0.1, 0.9, 0.2]], dtype=np.float32), available).tolist() == [0]
    assert decode_bits(np.array([[0.9, 0.1, 0.2]], dtype=np.float32), available).tolist() == [4]


def test_thresholding_and_nearest_code_agree_where_the_code_is_an_action() -> None:
    bits = np.random.default_rng(0).normal(0.5, 0.7, size=(500, 3)).astype(np.float32)
    decoded = decode_bits(bits, np.ones((500, 8), dtype=bool))  # 8 = 2^3: every code is an action
    np.testing.assert_array_equal(decoded, (bits > 0.5) @ np.array([4, 2, 1]))


def test_nothing_available_decodes_as_if_all_were() -> None:
    assert decode_bits(np.array([[1.0, 0.0, 0.0]], dtype=np.float32), np.zeros((1, 5), dtype=bool)).tolist() == [4]
