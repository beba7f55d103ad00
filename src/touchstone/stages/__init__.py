"""The five stages: each is one function, called by its notebook and by the doors for users."""
