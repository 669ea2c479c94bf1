"""
Tests of what is found in revisions before they run, and of what is measured.
"""
