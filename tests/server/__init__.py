"""Tests of the worker: connections and handlers over a real store."""
