"""What a question is, found without a model: its clean text, language, keywords and intent."""
