"""New model: say here what is inferred, and from what."""
