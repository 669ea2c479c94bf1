"""
What Stillroom costs and what it gains, side by side with other libraries in one run: `python -m benchmarks`.
"""
