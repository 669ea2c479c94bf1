"""
Tests of the throwaway servers and of the proxy.
"""
