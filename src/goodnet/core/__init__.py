"""The nouns of the house: what flows from step to step."""
