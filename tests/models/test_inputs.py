"""From x to vectors and tokens."""

from __future__ import annotations

import pytest
import torch

from trainctl.data.spec import Category, DataSpec
from trainctl.errors import UsageError
from trainctl.models import inputs

TABLE = DataSpec("table", "class", classes=("a", "b"), numeric=("n",), categories=(Category("c", 3), Category("d", 4)))
TEXT = DataSpec("sequence", "class", classes=("a", "b"), sequence_length=4, num_tokens=9)
IMAGE = DataSpec("image", "class", classes=("a", "b"), image_shape=(1, 9, 8))


def test_each_column_has_its_own_vectors() -> None:
    embed = inputs.ColumnEmbedding([3, 4], dim=2)
    vectors = embed(torch.tensor([[1.0, 1.0], [2.0, 3.0]]))
    assert vectors.shape == (2, 2, 2)
    assert torch.equal(vectors[0], embed.weight[[1, 4]])
    assert torch.equal(vectors[1], embed.weight[[2, 6]])


def test_missing_and_unseen_values_start_at_zero() -> None:
    embed = inputs.ColumnEmbedding([3, 4], dim=2)
    assert not embed(torch.zeros(1, 2)).any()
    assert embed.weight.any(1).tolist() == [False, True, True, False, True, True, True]


def test_the_offsets_are_not_part_of_the_weights() -> None:
    assert list(inputs.ColumnEmbedding([3, 4], dim=2).state_dict()) == ["weight"]


def test_a_tables_numbers_come_first_and_unchanged() -> None:
    vector = inputs.flat(TABLE, embedding_dim=5)
    x = torch.tensor([[-1.5, 2, 3]])
    assert vector.width == 11
    assert vector(x).shape == (1, 11)
    assert vector(x)[0, 0] == -1.5


def test_padding_does_not_change_a_sequences_mean() -> None:
    vector = inputs.flat(TEXT, embedding_dim=1, token_dim=6)
    padded, alone = vector(torch.tensor([[3, 5, 0, 0]])), vector(torch.tensor([[3, 5]]))
    torch.testing.assert_close(padded, alone)
    assert vector(torch.zeros(1, 4, dtype=torch.long)).tolist() == [[0.0] * 6]


def test_an_image_is_cut_into_whole_patches() -> None:
    assert inputs.tokens(IMAGE, dim=16, patch=4)(torch.randn(3, 1, 9, 8)).shape == (3, 4, 16)


@pytest.mark.parametrize("patch", [0, 9])
def test_a_patch_must_fit_the_image(patch: int) -> None:
    with pytest.raises(UsageError) as raised:
        inputs.tokens(IMAGE, dim=16, patch=patch)
    assert str(raised.value) == f"model.patch={patch} must be between 1 and 8, the image's smaller side"
