"""Models that answer N for "this input carries a trigger"."""
