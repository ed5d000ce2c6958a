"""The commands, by what they do. ``cli`` puts them together.

Those that need aiohttp import it in the function. It takes longer to load than all the rest, and
``health`` is asked every few seconds by whoever supervises a container.
"""
