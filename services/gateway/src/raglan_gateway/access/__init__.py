"""Access: who sends a request, and what its key allows.

| module | holds |
|---|---|
| `api_key` | the form of a key and its hash |
| `key_store` | keys in the database |
| `tokens`, `jwks` | JSON Web Tokens and the keys that they are checked with |
| `access` | the caller of a request, from what it sends |
| `routes` | the scope that each route needs |
| `collections` | the collections that a caller may touch |
| `audit` | the log of changes |
"""
