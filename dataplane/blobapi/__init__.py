"""The Blob protocol as pure functions: bytes and dataclasses in, bytes and decisions out.

Nothing here touches a socket, a file, a clock or an event loop; whatever varies is an argument.
"""
