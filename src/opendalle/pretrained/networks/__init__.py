"""Networks that only weights of other makers need; whatever else they are made of is the house's own."""
