"""
Units of work in asyncio, over each asynchronous driver.
"""
