"""The scan: each layer is changed alone, on rows spread over val, and is as it was afterwards."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainctl.data.base import Data
from trainctl.verbs import sensitivity

ROWS = 4_096


class Rows(Data):
    """Val of so many rows; nothing else is asked for."""

    def __init__(self) -> None:
        pass

    def load(self) -> Any:
        raise NotImplementedError

    def split(self, name: str) -> Any:
        return range(ROWS)


def parent_of(net: nn.Module, seen: list[Tensor]) -> Any:
    """A parent whose objective is minus the net's mean square distance from what it gives unchanged."""
    whole, x = copy.deepcopy(net).eval(), torch.randn(ROWS, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def value(net: nn.Module, rows: list[tuple[Tensor, Tensor]]) -> float:
        given = torch.cat([part for part, _ in rows])
        seen.append(given)
        with torch.inference_mode():
            return -float((net.eval()(given) - whole(given)).square().mean())

    parts = [(part, part) for part in x.split(512)]
    drop = SimpleNamespace(drop=lambda before, after: before - after)
    return SimpleNamespace(net=net, data=Rows(), value=value, objective=drop, own_value=1.0, val_batches=lambda: parts)


@pytest.mark.parametrize(("depth", "rows"), [(1, 512), (20, 279), (110, 64)])
def test_the_deeper_the_net_the_fewer_the_rows(monkeypatch: pytest.MonkeyPatch, depth: int, rows: int) -> None:
    torch.manual_seed(0)
    middle = [nn.Conv2d(4, 4, 1) for _ in range(depth)]
    net = nn.Sequential(nn.Conv2d(1, 4, 3), *middle, nn.Flatten(), nn.Linear(144, 3))
    before, seen = copy.deepcopy(net.state_dict()), list[Tensor]()
    monkeypatch.setattr(sensitivity.Parent, "restore", lambda job: parent_of(net, seen))
    found, own = sensitivity.scan(object())  # type: ignore[arg-type]
    assert own == 1.0 and [row["layer"] for row in found] == [*map(str, range(depth + 1)), str(depth + 2)]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert rows <= len(seen[0]) <= 1.1 * rows and all(len(given) == len(seen[0]) for given in seen)
    assert len(seen) == 1 + 2 * (depth + 1) + 3, "4 bits are for linear layers alone"
    assert set(found[0]["drop"]) == {"int8", "half"}
    drop = found[-1]["drop"]
    assert found[-1]["kind"] == "Linear" and 0 < drop["int8"] < drop["int4"] < drop["half"]
