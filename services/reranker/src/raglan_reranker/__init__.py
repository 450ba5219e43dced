"""Query and passages to relevance scores."""
