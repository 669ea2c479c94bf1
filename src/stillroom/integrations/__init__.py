"""One file for each framework; each needs only its own framework, and can be deleted without the others noticing."""
