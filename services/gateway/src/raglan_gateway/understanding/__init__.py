"""Understanding of questions without a model: clean text, language, keywords and intent."""
