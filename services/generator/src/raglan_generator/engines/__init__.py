"""The engines, one adapter a file."""
