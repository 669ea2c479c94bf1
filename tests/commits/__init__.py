"""
Tests of how commits end: one database, several, and when the answer is lost.
"""
