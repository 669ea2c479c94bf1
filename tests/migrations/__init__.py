"""
Tests of the migrations.
"""
