"""One file an engine. Each has a class ``Engine`` with the methods of ``worker.Adapter``."""
