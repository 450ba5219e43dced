"""What several gateways share, and what each does alone when the others cannot be reached."""
