"""trainctl: an experiment runner for training and optimising models. A run is a directory with a config."""

__version__ = "0.1.0"
