"""Rules: SQL over messages. `sql` (in a child) → plan → generated code → windows; pure but for `child`."""
