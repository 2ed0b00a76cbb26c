"""Studies: a sweep with figures, and findings that its numbers put in words."""
