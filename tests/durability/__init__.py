"""Proofs that an acknowledged write survives: power cuts, a killed worker, everything killed.

`history` (pure) says what may be found afterwards, `load` produces histories over HTTP, `disk` cuts the
power of a mounted file system, `server` starts and kills the product.
"""
