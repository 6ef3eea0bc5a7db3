"""The front door: one thin file per verb; each parses, calls a room below, and prints.  No torch until work begins."""
