"""Many rows at once, in constant memory: in by COPY or the fastest other way, and out to files."""
