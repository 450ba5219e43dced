"""Placement of the model services on GPUs: memory from `config.json`, then a plan.

Pure functions: configurations and sizes of GPUs in, bytes and a placement out. Nothing here reads a
GPU or imports a model library.
"""
