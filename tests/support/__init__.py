"""
What tests and benchmarks share: servers, throwaway databases and a proxy that gets in the way.
"""
