"""Search texts that a language model writes for a question, and a second try for a poor answer."""
