"""Integrations with other frameworks; imported only on demand."""
