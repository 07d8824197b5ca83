"""Tasks: what is optimised and what is measured. A task owns a net; it knows nothing of runs or files."""
