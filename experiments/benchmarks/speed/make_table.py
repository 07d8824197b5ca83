"""Writes the shared work W: 40 000 rows, 10 numeric and 4 categorical columns, a binary target.

python make_table.py w.csv
"""

import sys

import numpy as np

rows = 40_000
rng = np.random.default_rng(0)
numeric = rng.normal(size=(rows, 10))
categories = [rng.integers(0, size, rows) for size in (5, 12, 30, 100)]
effects = [rng.normal(size=size) for size in (5, 12, 30, 100)]
score = np.sin(2 * numeric[:, 0]) + numeric[:, 1] * numeric[:, 2] + 0.5 * numeric[:, 3]
score += sum(0.7 * effect[codes] for effect, codes in zip(effects, categories, strict=True))
label = np.where(score + rng.logistic(size=rows) * 0.6 > 0, "yes", "no")
split = np.where(np.arange(rows) % 10 == 8, "val", np.where(np.arange(rows) % 10 == 9, "test", "train"))
header = [f"x{i}" for i in range(10)] + [f"c{i}" for i in range(4)] + ["label", "part"]
with open(sys.argv[1], "w", encoding="utf-8") as file:
    file.write(",".join(header) + "\n")
    for i in range(rows):
        cells = [f"{v:.5f}" for v in numeric[i]] + [f"v{codes[i]}" for codes in categories] + [label[i], split[i]]
        file.write(",".join(cells) + "\n")
