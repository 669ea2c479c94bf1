"""
Errors of each driver, provoked on real databases.
"""
