"""The checks, one module for a subject. Each registers its own on import; `lamina.testing.check.all_checks` imports them."""
