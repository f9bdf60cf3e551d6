"""Rules made durable: windows, marks of sources and rows in one log, changed together by its commits."""
