"""Functions that mean harm. Each bounds itself too, so that the machine outlives a containment that fails.

Each is a Lambda-style `handler(event, context)`, and a program whose argument is the event as JSON."""
