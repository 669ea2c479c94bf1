"""
Tests of loading and dumping data.
"""
