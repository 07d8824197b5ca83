"""Many nets of one shape trained as one stacked model."""
