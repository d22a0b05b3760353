"""State: the database, content, images, layers, containers."""
