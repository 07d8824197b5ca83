"""Data modules: raw files in, `(x, y)` batches and a `DataSpec` out."""
