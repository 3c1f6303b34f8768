"""``python -m goodnet.cli`` is ``goodnet``."""

from goodnet.cli.main import main

main()
