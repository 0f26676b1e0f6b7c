"""The board network: the order of its moves, the range of its value."""

from __future__ import annotations

import torch

from modelwright.models import board


def test_moves_are_numbered_square_by_square() -> None:
    config = board.Config(channels=4, kinds=3, others=2, image=(3, 5), width=8, depth=1)
    model = config.build().eval()
    with torch.no_grad():
        model.policy.weight.zero_()
        model.policy.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
        model.others.weight.zero_()
        model.others.bias.copy_(torch.tensor([7.0, 8.0]))
    logits, value = model.policy_and_value(torch.randn(2, 3, 5, 4))
    assert config.moves == 3 * 5 * 3 + 2 == logits.shape[1]
    assert logits[0].tolist() == [0, 1, 2] * 15 + [7, 8]
    assert value.shape == (2,)


def test_a_square_of_the_input_is_that_square_of_the_policy() -> None:
    torch.manual_seed(0)
    config = board.Config(channels=1, kinds=2, width=8, depth=1, norm="batch")
    model = config.build().eval()
    empty, one = torch.zeros(2, 1, 8, 8, 1).unbind(0)
    one = one.clone()
    one[0, 6, 1, 0] = 1
    change = (model.policy_and_value(one)[0] - model.policy_and_value(empty)[0])[0]
    moved = change.view(8, 8, 2).abs().sum(-1).nonzero().tolist()
    assert [6, 1] in moved
    assert all(abs(r - 6) <= 3 and abs(c - 1) <= 3 for r, c in moved)  # three 3 x 3 convolutions


def test_the_value_is_the_last_number_and_within_one() -> None:
    torch.manual_seed(0)
    model = board.Config(**board.Config.specimen).build().eval()
    planes = torch.randn(4, 8, 8, 5) * 100
    logits, value = model.policy_and_value(planes)
    assert torch.equal(model(planes), torch.cat((logits, value[:, None]), 1))
    assert value.abs().max() <= 1


def test_the_codec_decides_board_and_moves() -> None:
    class Codec:
        shape, kinds, others = (8, 8, 119), 73, 0

    config = board.Config(**board.Config.data_fields(Codec))
    assert config.moves == 4672  # of chess, as arXiv:1712.01815 counts them
