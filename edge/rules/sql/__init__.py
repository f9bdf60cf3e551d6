"""A rule's text → its plan. The only door to sqlglot: `parse` is a process of its own, nothing else imports these."""
