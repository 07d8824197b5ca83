"""The hand-written script that trainctl is measured against: the same work W with nothing around it.

python hand.py w.csv EPOCHS     prints one JSON line: CPU and wall seconds of fit and of the whole, accuracy
"""

import json
import sys
import time

started = time.perf_counter()

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

torch.set_num_threads(1)  # its best
torch.manual_seed(int(sys.argv[3]))
frame = pl.read_csv(sys.argv[1])
part = frame["part"].to_numpy()
numeric = frame.select([f"x{i}" for i in range(10)]).to_numpy().astype(np.float32)
train = part == "train"
numeric = (numeric - numeric[train].mean(0)) / numeric[train].std(0)
levels = [{v: k + 1 for k, v in enumerate(sorted(frame[f"c{i}"].unique()))} for i in range(4)]
codes = np.stack([[levels[i][v] for v in frame[f"c{i}"]] for i in range(4)], 1)
y = (frame["label"].to_numpy() == "yes").astype(np.int64)
data = {
    name: (torch.tensor(numeric[part == name]), torch.tensor(codes[part == name]), torch.tensor(y[part == name]))
    for name in ("train", "val", "test")
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = nn.ModuleList([nn.Embedding(len(level) + 1, 8) for level in levels])
        self.layers = nn.Sequential(
            nn.Linear(10 + 4 * 8, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
        )

    def forward(self, x, c):
        return self.layers(torch.cat([x, *[e(c[:, i]) for i, e in enumerate(self.embeddings)]], 1))


net = Net()
fused = True if sys.argv[4:] == ["fused"] else None  # torch's default on the CPU is the slower foreach
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01, fused=fused)
x, c, t = data["train"]
fit_wall, fit_cpu = time.perf_counter(), time.process_time()
best, best_state = 1e9, None
for _epoch in range(int(sys.argv[2])):
    net.train()
    order = torch.randperm(len(x))
    for i in range(0, len(x), 256):
        rows = order[i : i + 256]
        loss = F.cross_entropy(net(x[rows], c[rows]), t[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        vx, vc, vt = data["val"]
        output = net(vx, vc)
        val_loss, accuracy = F.cross_entropy(output, vt).item(), (output.argmax(1) == vt).float().mean().item()
    if val_loss < best:
        best, best_state = val_loss, {k: v.clone() for k, v in net.state_dict().items()}
fit_wall, fit_cpu = time.perf_counter() - fit_wall, time.process_time() - fit_cpu
net.load_state_dict(best_state)
with torch.no_grad():
    tx, tc, tt = data["test"]
    accuracy = (net(tx, tc).argmax(1) == tt).float().mean().item()
result = {"fit_cpu": fit_cpu, "fit_wall": fit_wall, "accuracy": accuracy, "val_loss": best}
print(json.dumps(result | {"cpu": time.process_time(), "wall": time.perf_counter() - started}))
