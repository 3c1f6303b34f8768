"""What an audit found, for people (html) and for programs (json)."""
