"""Images: names, archives, layers, the store they are kept in, and where they come from."""
