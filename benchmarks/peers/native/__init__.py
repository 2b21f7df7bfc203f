"""One module per engine, each with a class ``Engine`` that implements ``worker.Adapter``."""
