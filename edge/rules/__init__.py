"""Rules: SQL over messages. parse (in a child) → plan → generated code → windows; pure but for `child`."""
