"""The receiving side: stores telemetry so that each reading is shown exactly once, and shows it."""
