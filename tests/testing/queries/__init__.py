"""
Assertions on what code sends to its databases.
"""
