"""Tests of the sandbox: one connection and one transaction that is never committed."""
