"""The REST surface: routes, the shapes they take and give, and the border of every request."""
