"""What every data set named in conf/data must do, whether its files are here or not."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import trainctl.build
from trainctl.data.base import SPLITS, Data
from trainctl.data.spec import DataSpec
from trainctl.errors import DataError, TrainctlError

CONF = Path(__file__).parents[2] / "conf"
NAMES = [path.relative_to(CONF / "data").with_suffix("").as_posix() for path in sorted((CONF / "data").rglob("*.yaml"))]
BUNDLED = {"digits", "tabular", "synthetic", "synthetic_images", "synthetic_sequences"}
OWN_FILES = {"image_folder", "text"}  # the user names them
TEST_APART = {"tabular"}  # the test split has its own file and row numbers
SMALL = {
    "synthetic": ["data.rows=500"],
    "synthetic_images": ["data.rows=500"],
    "synthetic_sequences": ["data.rows=500"],
}


def build(name: str, files: Path, *overrides: str) -> Data:
    """The data module of conf/data/<name>.yaml with `paths.data` set to `files`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        given = [f"data={name}", f"paths.data={files}", *SMALL.get(name, []), *overrides]
        config = compose("train", overrides=given)
    data = trainctl.build.data(cast(dict[str, Any], OmegaConf.to_container(config, resolve=True)))
    assert isinstance(data, Data)
    return data


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("no_data")


@pytest.fixture(scope="module", params=sorted(BUNDLED))
def name(request: pytest.FixtureRequest) -> str:
    return cast(str, request.param)


@pytest.fixture(scope="module")
def pair(name: str, nowhere: Path) -> tuple[Data, Data]:
    """The same bundled data set twice, set up independently."""
    first, second = build(name, nowhere), build(name, nowhere)
    first.setup()
    second.setup("fit")
    return first, second


def same(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)


def test_every_bundled_name_has_a_config() -> None:
    assert BUNDLED | OWN_FILES < set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_config_begins_with_a_line_that_says_what_it_is(name: str) -> None:
    first = (CONF / "data" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and len(first) > 20


@pytest.mark.parametrize("name", sorted(set(NAMES) - BUNDLED))
def test_a_missing_file_is_a_sentence_that_says_what_to_do(name: str, nowhere: Path) -> None:
    with pytest.raises(TrainctlError) as caught:
        build(name, nowhere).setup()
    sentence = str(caught.value)
    assert "\n" not in sentence
    if name in OWN_FILES:
        assert "data.path=" in sentence and caught.value.exit_code == 2
    else:
        assert isinstance(caught.value, DataError)
        assert "get it from" in sentence or "fetch" in sentence
        assert str(nowhere) in sentence and "put" in sentence and "TRAINCTL_DATA" in sentence


def test_the_spec_survives_json_and_describes_the_tensors(pair: tuple[Data, Data]) -> None:
    data = pair[0]
    assert DataSpec.from_dict(json.loads(json.dumps(data.spec.to_dict()))) == data.spec
    for name in SPLITS:
        part = data.split(name)
        assert part.y is not None and len(part.x) == len(part.y) == len(part.rows) > 0
        if data.spec.kind == "table":
            assert part.x.shape[1:] == (data.spec.num_features,) and part.x.dtype == torch.float32
            assert torch.isfinite(part.x).all()
        elif data.spec.kind == "image":
            assert part.x.shape[1:] == data.spec.image_shape and part.x.dtype == torch.uint8
            assert data.spec.image_shape is not None and len(data.spec.mean) == data.spec.image_shape[0]
        else:
            assert part.x.shape[1:] == (data.spec.sequence_length,) and part.x.dtype == torch.int64
            assert int(part.x.max()) < data.spec.num_tokens
        if data.spec.target == "class":
            assert part.y.dtype == torch.int64
            assert 0 <= int(part.y.min()) and int(part.y.max()) < len(data.spec.classes)
        else:
            assert part.y.dtype == torch.float32


def test_splits_are_disjoint_repeatable_and_recorded(name: str, pair: tuple[Data, Data]) -> None:
    first, second = pair
    numbered = SPLITS[:2] if name in TEST_APART else SPLITS
    for one, other in combinations(numbered, 2):
        assert not set(first.split(one).rows.tolist()) & set(first.split(other).rows.tolist())
    told = first.describe()
    assert json.loads(json.dumps(told)) == json.loads(json.dumps(second.describe()))
    for one in SPLITS:
        assert same(first.split(one).x, second.split(one).x) and same(first.split(one).y, second.split(one).y)
        assert told["splits"][one]["rows"] == len(first.split(one))
        assert len(told["splits"][one]["sha256"]) == 64
    assert len({told["splits"][one]["sha256"] for one in SPLITS}) == 3
    assert all(isinstance(line, str) for line in told["warnings"])


def test_another_seed_splits_otherwise(name: str, nowhere: Path) -> None:
    rows = [sorted(build(name, nowhere, f"seed={seed}").split("val").rows.tolist()) for seed in (1, 2)]
    assert rows[0] != rows[1]


def test_saved_preprocessing_gives_the_same_tensors(pair: tuple[Data, Data], tmp_path: Path) -> None:
    first, second = pair
    first.save(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".json", ".safetensors"}
    before = {name: (second.split(name).x, second.split(name).y) for name in SPLITS}
    second.restore(tmp_path)
    second.setup()
    assert second.spec == first.spec
    for name in SPLITS:
        assert same(second.split(name).x, before[name][0]) and same(second.split(name).y, before[name][1])


def test_loaders_serve_every_row(pair: tuple[Data, Data]) -> None:
    data = pair[0]
    for name, loader in (
        ("train", data.train_dataloader()),
        ("val", data.val_dataloader()),
        ("test", data.test_dataloader()),
    ):
        assert sum(len(x) for x, _ in loader) == len(data.split(name))


def test_a_misspelled_split_kind_is_refused(name: str, nowhere: Path) -> None:
    with pytest.raises(TrainctlError) as caught:
        build(name, nowhere, "data.split.kind=randm").setup()
    assert "did you mean `random`?" in str(caught.value) and caught.value.exit_code == 2
