"""An approximated function gives an element the same bits wherever it stands."""

import torch

from onelook.elementwise import map_steadily


def test_neither_place_nor_threads_nor_shape_change_a_bit():
    draw = torch.Generator().manual_seed(1)
    values = 8 * torch.randn(100_003, generator=draw)
    for function in (torch.exp, torch.tanh, torch.sigmoid, torch.nn.functional.softplus):
        whole = map_steadily(function, values)
        torch.testing.assert_close(whole, function(values))
        for start, stop in ((0, 7), (1, 100_003), (33_000, 65_541), (99_999, 100_003)):
            assert torch.equal(map_steadily(function, values[start:stop]), whole[start:stop])
        shaped = map_steadily(function, values[:9999].reshape(3, 3333).T)
        assert torch.equal(shaped, whole[:9999].reshape(3, 3333).T)
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            assert torch.equal(map_steadily(function, values), whole)
        finally:
            torch.set_num_threads(before)


def test_nothing_gives_nothing():
    assert map_steadily(torch.exp, torch.zeros(0, 3)).shape == (0, 3)
