"""
Tests that really commit, and the cleaning after them.
"""
