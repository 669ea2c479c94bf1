"""
Tests of the testing toolkit.
"""
