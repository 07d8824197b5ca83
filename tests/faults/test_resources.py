"""Full disks, memory, killed workers and numbers that are not finite (rows 54 to 56)."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from trainctl.run import checkpoints
from trainctl.run.run import Run

EARLIER = "; earlier checkpoints are good"


def too_long(run: Path, epoch: int, more: str = "") -> str:
    file = f"runs/train/{run.name}/checkpoints/last.ckpt"
    return f"the limit on file sizes (ulimit -f) is reached writing to `{file}` at epoch {epoch}{more}"


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for temporary files on another file system where there is one; it must stay empty."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path_factory.mktemp("elsewhere")
    folder = folder / f"trainctl-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    yield folder
    folder.rmdir()


def test_row_54_a_full_disk_at_the_first_checkpoint(shell, elsewhere):
    for size in (200_000, 20_000):
        sentence = shell.error(5, *shell.quick, limits={"RLIMIT_FSIZE": size}, env={"TMPDIR": str(elsewhere)})
        run = shell.run()
        assert sentence == too_long(run, 1)
        assert list((run / "checkpoints").iterdir()) == []
        record = Run.open(run).record
        assert (record["status"], record["error"]["code"], record["error"]["message"]) == ("failed", 5, sentence)
        assert "Traceback" in (run / "error.txt").read_text(encoding="utf-8")


def test_row_54_a_full_disk_later_leaves_the_earlier_checkpoints(spoiled, elsewhere):
    run = spoiled.run()
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    words = ("train", "--resume", "latest", "trainer.max_epochs=6")
    sentence = spoiled.error(5, *words, limits={"RLIMIT_FSIZE": 200_000}, env={"TMPDIR": str(elsewhere)})
    assert sentence == too_long(run, 4, EARLIER)
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before
    assert [checkpoints.find(run, name).epoch for name in ("last", "prev", "best")] == [3, 2, 3]
    assert spoiled("train", "--resume", "latest").code == 0
    assert [row["epoch"] for row in Run.open(run).metrics_log()] == [1, 2, 3, 4, 5, 6]


def test_row_54_a_disk_so_full_that_nothing_can_be_noted(shell):
    sentence = shell.error(5, *shell.quick, limits={"RLIMIT_FSIZE": 2_000})
    assert sentence.startswith("the limit on file sizes (ulimit -f) is reached writing ")
    assert shell("runs", "--json").json["runs"][0]["status"] == "crashed"


def test_row_54_predictions_on_a_full_disk(shell):
    table = "a,b,y\n" + "".join(f"{i * 1.37},{i * i % 11}.25,{'yes' if i % 2 else 'no'}\n" for i in range(3000))
    (shell.folder / "x.csv").write_text(table, encoding="utf-8")
    assert shell("train", "data.path=x.csv", "data.target=y", "trainer.max_epochs=1", "trainer.threads=1").code == 0
    for out in ("out.csv", "out.parquet", "out.jsonl"):
        words = ("predict", "latest:train", "x.csv", "-o", out)
        sentence = shell.error(5, *words, limits={"RLIMIT_FSIZE": 12_000})
        assert sentence.startswith("the limit on file sizes (ulimit -f) is reached writing")
    assert [path.name for path in shell.folder.iterdir() if "out" in path.name] == []


def test_row_54_quantizing_needs_room_for_what_ships_alone(shell):
    assert shell.train("model.hidden_dims=[64,64]").code == 0
    words = ("quantize", shell.run(), "compressor=int8_static", "measure.seconds=0.05", "measure.bootstrap=20")
    sentence = shell.error(5, *words, limits={"RLIMIT_FSIZE": 8_000})
    said = r"the limit on file sizes \(ulimit -f\) is reached writing [\d.]+ kB to `runs/quantize/[^`]*/model\.onnx`"
    assert re.fullmatch(said, sentence), sentence


def test_row_55_no_memory_for_the_data(shell):
    words = ("data.rows=20000000", "data.numeric=100", "data.categorical=0")
    assert shell.error(5, *shell.quick, *words, limits={"RLIMIT_AS": 6 << 30}) == (
        "out of memory (batch 32); try a smaller `data.batch_size=`, less data or a smaller net"
    )
    assert Run.open(shell.run()).record["error"]["code"] == 5


def test_row_55_no_memory_for_a_batch(shell):
    words = ("data.rows=100000", "data.batch_size=60000", "model.hidden_dims=[20000]")
    assert shell.error(5, *shell.quick, *words, limits={"RLIMIT_AS": 4 << 30}) == (
        "out of memory in epoch 1 (batch 60000); try a smaller `data.batch_size=`"
    )


def test_row_55_a_killed_worker_of_a_loader(shell):
    (shell.folder / "their.py").write_text(
        "import os, signal, torch, pytorch_lightning as pl\n"
        "class Rows(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 64\n"
        "    def __getitem__(self, i):\n"
        "        if i == 40 and torch.utils.data.get_worker_info():\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return torch.zeros(3), torch.tensor(i % 2)\n"
        "class Data(pl.LightningDataModule):\n"
        "    num_classes = 2\n"
        "    def loader(self, workers=0):\n"
        "        return torch.utils.data.DataLoader(Rows(), batch_size=8, num_workers=workers)\n"
        "    def train_dataloader(self): return self.loader(1 if self.trainer else 0)\n"
        "    val_dataloader = test_dataloader = loader\n",
        encoding="utf-8",
    )
    (shell.folder / "conf" / "data").mkdir(parents=True)
    (shell.folder / "conf" / "data" / "theirs.yaml").write_text("_target_: their.Data\n", encoding="utf-8")
    done = shell("train", "data=theirs", "trainer.max_epochs=2", "trainer.threads=1")
    assert done.code == 5, done.err
    assert done.err.splitlines()[-1] == (
        "trainctl: error: a process that loads data was killed; if memory ran out, use fewer of them (num_workers)"
    )


def test_a_file_of_someone_elses_that_may_not_be_read(shell):
    (shell.folder / "their.py").write_text(
        "import pytorch_lightning as pl\n"
        "class Data(pl.LightningDataModule):\n"
        "    def setup(self, stage): open('secret.txt')\n",
        encoding="utf-8",
    )
    (shell.folder / "conf" / "data").mkdir(parents=True)
    (shell.folder / "conf" / "data" / "theirs.yaml").write_text("_target_: their.Data\n", encoding="utf-8")
    (shell.folder / "secret.txt").touch(mode=0)
    said = shell.error(5, "train", "data=theirs", "trainer.max_epochs=1", bound_by_modes=True)
    assert said == "cannot open `secret.txt`: permission denied"


def test_row_56_a_loss_that_is_nan_in_the_first_epoch(shell):
    sentence = shell.error(6, *shell.quick, "optimizer=sgd", "optimizer.lr=1e30")
    assert re.fullmatch(r"loss is nan at epoch 1 step \d+ \(lr 1e\+30\); there is no finite checkpoint yet", sentence)
    assert Run.open(shell.run()).record["error"] == {"kind": "DivergedError", "message": sentence, "code": 6}
    assert not (shell.run() / "model.safetensors").exists()


def test_row_56_a_loss_that_is_nan_later(shell):
    words = ("data.target=number", "optimizer=sgd", "optimizer.lr=2", "trainer.max_epochs=50")
    sentence = shell.error(6, *shell.quick, *words)
    pattern = r"loss is (nan|inf) at epoch (\d+) step \d+ \(lr 2\); last finite checkpoint: epoch (\d+)"
    found = re.fullmatch(pattern, sentence)
    assert found, sentence
    assert int(found[3]) == int(found[2]) - 1 >= 1
    run = Run.open(shell.run())
    assert checkpoints.find(run.path).epoch == int(found[3])
    assert len(run.metrics_log()) == int(found[3])
    listed = json.loads(shell("runs", "--json").out)["runs"]
    assert [one["status"] for one in listed] == ["failed"]
