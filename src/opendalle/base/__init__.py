"""Ground floor: errors, axis legend, chance, the Request, records and the five meeting points."""
