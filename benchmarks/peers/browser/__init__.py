"""One script an engine, one page each, all in one Chromium."""
