"""
The integrations, each against its framework.
"""
