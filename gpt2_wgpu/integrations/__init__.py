"""What fits this package to others' frameworks; nothing here is loaded unless it is asked for."""
