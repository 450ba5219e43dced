"""OpenAI's API, and the rerank API of Cohere and Jina, in terms of queries and collections."""
