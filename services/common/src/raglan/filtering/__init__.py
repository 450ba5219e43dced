"""The filter language: terms of metadata, clauses over them, and the wire's form of both.

The index hands clauses to its store; the ingester evaluates them over its rows. Equality and
ranges are defined here alone, so that both find the same documents.
"""
