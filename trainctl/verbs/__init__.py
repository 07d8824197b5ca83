"""Verbs: functions from a job (a run and how to run it) to a finished run."""
