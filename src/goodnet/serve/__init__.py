"""Serving over HTTP what judges pictures: predictions, a quarantine for what is answered N, and a page to review it."""
