"""Tests of test databases: the guard, names, templates, runs side by side."""
