"""Runtimes: asyncio (with any event loop policy, uvloop included) and trio. Import the one you need by its module."""
