"""A hand-written loop for a small CNN on Fashion-MNIST: images in memory as uint8, one permutation an epoch.

python hand_cnn.py FOLDER_WITH_IDX_FILES EPOCHS THREADS     prints one JSON line
"""

import gzip
import json
import resource
import sys
import time
from pathlib import Path

started = time.perf_counter()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from trainctl.data.spec import DataSpec  # noqa: E402
from trainctl.models.cnn import CNN  # noqa: E402

folder, epochs, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
torch.manual_seed(0)


def read(name: str, offset: int) -> np.ndarray:
    return np.frombuffer(gzip.open(folder / name).read(), np.uint8, offset=offset)


images = torch.from_numpy(read("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28).copy())
labels = torch.from_numpy(read("train-labels-idx1-ubyte.gz", 8).astype(np.int64))
order = torch.randperm(len(images))
train, val = order[:51_000], order[51_000:]
mean, std = images[train].float().div(255).mean(), images[train].float().div(255).std()
spec = DataSpec(kind="image", target="class", classes=tuple("0123456789"), image_shape=(1, 28, 28))
net = CNN(spec, channels=[32, 64, 128], hidden_dim=128, dropout=0.25)
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
wall, cpu = time.perf_counter(), time.process_time()
for _epoch in range(epochs):
    net.train()
    order = train[torch.randperm(len(train))]
    for i in range(0, len(order), 128):
        rows = order[i : i + 128]
        loss = F.cross_entropy(net((images[rows].float() / 255 - mean) / std), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        right = 0
        for i in range(0, len(val), 512):
            rows = val[i : i + 512]
            right += (net((images[rows].float() / 255 - mean) / std).argmax(1) == labels[rows]).sum().item()
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(
    json.dumps(
        {
            "fit_cpu": cpu,
            "fit_wall": wall,
            "images_per_s": epochs * len(train) / wall,
            "val_accuracy": right / len(val),
            "peak_mb": peak,
        }
    )
)
