"""
Tests of the write side.
"""
