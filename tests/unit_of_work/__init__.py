"""
Tests of the synchronous unit of work, against real servers.
"""
