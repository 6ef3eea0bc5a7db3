"""The emoji world: real, freely licensed artwork with names in many languages, and scenes composed from it."""
