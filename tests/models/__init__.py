"""
Tests of the models' bases, columns, mixins and finders.
"""
