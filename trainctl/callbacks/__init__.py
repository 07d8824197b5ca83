"""Our Lightning callbacks: what a run keeps, shows and obeys while it trains."""

from trainctl.callbacks.checkpoint import Checkpoint
from trainctl.callbacks.early_stopping import EarlyStopping
from trainctl.callbacks.record import Record
from trainctl.callbacks.report import Report
from trainctl.callbacks.seeds import Seeds
from trainctl.callbacks.show import Show
from trainctl.callbacks.signals import Signals

__all__ = ["Checkpoint", "EarlyStopping", "Record", "Report", "Seeds", "Show", "Signals"]
