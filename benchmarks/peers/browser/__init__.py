"""One script and page per engine, all in one Chromium."""
