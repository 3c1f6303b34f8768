"""The command line: thin; whatever is useful in Python too lives in the rooms below."""
