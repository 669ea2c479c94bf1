"""
The tests of Stillroom.
"""
