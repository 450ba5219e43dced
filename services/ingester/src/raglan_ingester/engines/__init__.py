"""Durable execution engines of jobs."""
