"""
Tests of repositories.
"""
