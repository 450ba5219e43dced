"""Conversations: stand-alone questions, sessions, feedback and past answers."""
